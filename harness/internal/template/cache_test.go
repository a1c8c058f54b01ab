package template

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/store"
)

func testCache(t *testing.T) *Cache {
	t.Helper()
	c, err := OpenCache(t.TempDir())
	require.NoError(t, err)
	return c
}

// publish makes a template in a cache.
func publish(t *testing.T, c *Cache, key string) {
	t.Helper()
	b, err := c.Build(t.Context(), key, false)
	require.NoError(t, err)
	defer b.Close()
	saved(t, b.Path(""))
	require.NoError(t, c.Publish(b, key))
}

func keys(c *Cache) string {
	var all []string
	for _, e := range c.List() {
		all = append(all, e.Key)
	}
	return strings.Join(all, " ")
}

func TestLookupFindsAPublishedTemplate(t *testing.T) {
	c := testCache(t)
	key, err := Key(machine, false)
	require.NoError(t, err)
	none, reason, err := c.Lookup(key)
	require.NoError(t, err)
	require.Nil(t, none)
	require.Empty(t, reason)

	publish(t, c, key)
	found, _, err := c.Lookup(key)
	require.NoError(t, err)
	require.NoError(t, found.Fits(machine))
	require.NoError(t, openFiles(found))
	all := c.List()
	require.Len(t, all, 1)
	require.Equal(t, key, all[0].Key)
	require.Equal(t, "arm64", all[0].Target)
	require.Positive(t, all[0].Bytes)

	require.NoError(t, os.Remove(c.store.Path(key, descriptionName)))
	_, _, err = c.Lookup(key)
	require.True(t, IsFault(err), "%v", err)
	require.Equal(t, "?", c.List()[0].Target)
	require.NoError(t, c.Remove(key))
	require.Empty(t, keys(c))
}

func TestATemplateOfAnyGuestHasAnotherKey(t *testing.T) {
	one, err := Key(machine, false)
	require.NoError(t, err)
	other, err := Key(machine, true)
	require.NoError(t, err)
	require.NotEqual(t, one, other)
	require.Len(t, one, 32)
}

func TestANoteIsKeptForADay(t *testing.T) {
	c := testCache(t)
	c.Note("aa", "it has no agent")
	found, reason, err := c.Lookup("aa")
	require.NoError(t, err)
	require.Nil(t, found)
	require.Equal(t, "it has no agent", reason)
	require.Empty(t, keys(c))
	c.Prune()
	require.FileExists(t, c.store.Path("aa.cold"))

	old := time.Now().Add(-keepNote - time.Minute)
	require.NoError(t, os.Chtimes(c.store.Path("aa.cold"), old, old))
	c.Prune()
	require.NoFileExists(t, c.store.Path("aa.cold"))
}

func TestThePrunedTemplateIsTheLeastRecentlyUsed(t *testing.T) {
	defer func(l store.Limits) { limits = l }(limits)
	c := testCache(t)
	limits = store.Limits{Entries: 3, Bytes: 1 << 30}
	for i, key := range []string{"aa", "bb", "cc"} {
		publish(t, c, key)
		used := time.Now().Add(time.Duration(i-3) * time.Hour)
		require.NoError(t, os.Chtimes(c.store.Path(key), used, used))
	}
	require.Equal(t, "cc bb aa", keys(c))
	_, _, err := c.Lookup("aa")
	require.NoError(t, err)
	require.Equal(t, "aa cc bb", keys(c))
	// The kernel's clock for file times may be a tick behind the time that Lookup sets.
	used := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(c.store.Path("aa"), used, used))
	publish(t, c, "dd")
	require.Equal(t, "dd aa cc", keys(c))
	limits.Bytes = c.List()[0].Bytes * 5 / 2
	c.Prune()
	require.Equal(t, "dd aa", keys(c))
}

func TestClearKeepsTemplatesThatAreBeingBuilt(t *testing.T) {
	c := testCache(t)
	publish(t, c, "aa")
	c.Note("bb", "it has no agent")
	b, err := c.Build(t.Context(), "cc", false)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(c.store.Path("tmp", "gone-1"), 0o700))
	require.NoError(t, c.Clear())
	require.Empty(t, keys(c))
	require.NoFileExists(t, c.store.Path("bb.cold"))
	require.NoDirExists(t, c.store.Path("tmp", "gone-1"))
	saved(t, b.Path(""))
	require.NoError(t, c.Publish(b, "cc"))
	b.Close()
	require.Equal(t, "cc", keys(c))
}
