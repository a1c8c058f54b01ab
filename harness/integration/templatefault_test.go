package integration

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/internal/target"
)

// wrappedQEMU returns a target's QEMU that first runs the shell commands in a file.
func wrappedQEMU(t *testing.T, name string) (qemu, commands string) {
	t.Helper()
	tg, err := target.Lookup(name)
	require.NoError(t, err)
	real, err := exec.LookPath(tg.QEMU)
	require.NoError(t, err)
	dir := t.TempDir()
	qemu, commands = filepath.Join(dir, "qemu"), filepath.Join(dir, "commands")
	script := fmt.Sprintf("#!/bin/sh\n. %s\nexec %s \"$@\"\n", commands, real)
	require.NoError(t, os.WriteFile(commands, nil, 0o644))
	require.NoError(t, os.WriteFile(qemu, []byte(script), 0o755))
	return qemu, commands
}

// A restore that fails for a reason outside its template keeps the template. The next machine is
// restored from it.
func TestOnlyAFaultyTemplateIsRemoved(t *testing.T) {
	t.Parallel()
	name := oneTarget(t)
	spec := echoSpec(t, name)
	spec.Accel = harness.TCG
	qemu, commands := wrappedQEMU(t, name)
	spec.QEMU = qemu
	cache := &harness.TemplateCache{Dir: t.TempDir()}
	require.Equal(t, "cold: the first boot of its kind, saved for the next", bootFrom(t, cache, spec))
	only := func() string {
		all := templates(t, cache)
		require.Len(t, all, 1, "the template was kept")
		return filepath.Join(cache.Dir, all[0].Key)
	}

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for fault, of := range map[string]struct {
		shell string // the first command of QEMU's wrapper
		dir   string // the record's directory
		says  string
	}{
		"a record in /proc":               {dir: "/proc/x", says: "record: mkdir /proc/x"},
		"a record below a file":           {dir: filepath.Join(file, "record"), says: "record: mkdir"},
		"a QEMU that somebody kills":      {shell: "kill -9 $$", says: "signal: killed"},
		"a QEMU that ends before it asks": {shell: "echo no memory >&2; exit 1", says: "no memory"},
		"a QEMU that cannot be started":   {shell: "exec /nonexistent/qemu", says: "QEMU did not start"},
	} {
		require.NoError(t, os.WriteFile(commands, []byte(of.shell+"\n"), 0o644))
		asked := spec
		asked.Dir = of.dir
		m, err := harness.Boot(t.Context(), from(cache, asked))
		if err == nil {
			m.Close()
		}
		require.ErrorContains(t, err, of.says, fault)
		only()
		require.NoError(t, os.WriteFile(commands, nil, 0o644))
		require.Equal(t, "restored", bootFrom(t, cache, spec), "after %s", fault)
	}

	// The state has the right hash and is garbage. Only QEMU can notice that.
	template := only()
	forgeState(t, template)
	require.Contains(t, bootFrom(t, cache, spec), string(withoutTemplate(spec))+": restoring it failed: QEMU")
	all := templates(t, cache)
	require.Empty(t, all, "the next boot saves another template")
}

// forgeState overwrites a part of a template's state and updates the hash in the template's
// description.
func forgeState(t *testing.T, template string) {
	t.Helper()
	file := filepath.Join(template, "state")
	state, err := os.ReadFile(file)
	require.NoError(t, err)
	for i := range state[8:1024] {
		state[8+i] = 0xff
	}
	require.NoError(t, os.WriteFile(file, state, 0o600))
	description := filepath.Join(template, "template.json")
	text, err := os.ReadFile(description)
	require.NoError(t, err)
	var content map[string]any
	require.NoError(t, json.Unmarshal(text, &content))
	content["state"].(map[string]any)["sha256"] = fmt.Sprintf("%x", sha256.Sum256(state))
	text, err = json.Marshal(content)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(description, text, 0o600))
}
