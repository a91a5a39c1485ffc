package main

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the child, too: the parent starts whatever
// program it is.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-child") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestPoison(t *testing.T) {
	t.Parallel()
	require.NoError(t, run(t.Context(), t.TempDir()))
}
