package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSwap: the program comes to the same books on both, and these are right.
func TestSwap(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), "both", 50, &out), out.String())
	require.Equal(t, 2, strings.Count(out.String(), "    50 invoices of 62.25, 50 archived; 5 orders failed once\n    poisoned: a coffee stain: no order\n"), out.String())
	require.Contains(t, out.String(), "the same on both")
}

func TestUnknownTransport(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, run(t.Context(), "carrier pigeon", 1, &bytes.Buffer{}), "no such transport")
}
