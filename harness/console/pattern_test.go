package console

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAMatchIsFinalIfNoTextCanChangeIt(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{`ready`, "ready", true},
		{`port (\d+)`, "port 42", false},
		{`port (\d+)`, "port 42 ", true},
		{`port (\d+)`, "port 42\n", true},
		{`done$`, "done", false},
		{`done$`, "done\n", true},
		{`\bdone\b`, "done", false},
		{`\$ `, "uart:~$ ", true},
		{`(?:^|uart:~\$ )\$ `, "uart:~$ $ ", true},
		{`^service\s+1 socket`, "service   1 socket", true},
		{`a.*`, "abc", false},
		{`listen (.*)/`, "listen a/", false},
		{`line\n`, "line\n", true},
		{`state=([A-Z]+)`, "state=R", false},
		{`ver=(\d(?:\.\d)?)`, "ver=1", false},
		{`OK(AY)?`, "OK", false},
		{`OK(AY)?`, "OK\n", true},
		{`OKAY|OK`, "OK", false},
		{`OK|OKAY`, "OK", true},
		{`hello(?: world)?`, "hello", false},
		{`[xyz]{1,3}`, "xy", false},
		{`[xyz]{1,3}`, "xyz", true},
		{`x+?`, "x", true},
		{`ab+c|b`, "abb", false},
		{`addr ([0-9a-f]{4}(?::[0-9a-f]{4})*)`, "addr 2001", false},
		{`(?s)a.*b`, "a b\n", false},
		{`é+`, "é", false},
	} {
		p, err := compile(c.pattern)
		require.NoError(t, err)
		require.Equal(t, c.want, p.final([]byte(c.text)), "%s in %q", c.pattern, c.text)
	}
}
