package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestShop(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := plan{usual: 20, burst: 100, stepCost: time.Millisecond}
	require.NoError(t, run(t.Context(), t.TempDir(), p, &out), out.String())
	require.Contains(t, out.String(), "120 orders reserved")
}

func TestStockNoticesWrongOrder(t *testing.T) {
	t.Parallel()
	var s stock
	require.NoError(t, s.handle(t.Context(), orderMessage(orderTopic, payOrder, 1)))
	require.NoError(t, s.handle(t.Context(), orderMessage(orderTopic, createOrder, 2)))
	require.NoError(t, s.handle(t.Context(), orderMessage(orderTopic, createOrder, 2)))
	require.Equal(t, []string{"PayOrder of order 1", "CreateOrder of order 2"}, s.complaints())
}
