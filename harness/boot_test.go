package harness

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/template"
)

func TestAStartThatWaitsForTheRestoreLimiterCanBeCancelled(t *testing.T) {
	for range cap(restoring) {
		restoring <- struct{}{}
		defer func() { <-restoring }()
	}
	p, err := minimal(t).check()
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user cancelled")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err = p.launch(ctx, how{from: &template.Template{}})
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "boot x86_64: ")
}
