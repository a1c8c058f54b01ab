package sys

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBootIDIsAUUID(t *testing.T) {
	id, err := BootID()
	require.NoError(t, err)
	require.Regexp(t, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, id)
	again, err := BootID()
	require.NoError(t, err)
	require.Equal(t, id, again)
}
