package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQueries(t *testing.T) {
	t.Parallel()
	require.NoError(t, run(t.Context(), t.TempDir()))
}
