package main

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRetries(t *testing.T) {
	t.Parallel()
	require.NoError(t, run(t.Context(), io.Discard))
}
