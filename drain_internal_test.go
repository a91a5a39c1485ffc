package mq

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSimpleDrainedWhileWoken: a receiver that was woken and has yet to look is
// its caller's affair as well; nobody would tell who waits that it has looked.
func TestSimpleDrainedWhileWoken(t *testing.T) {
	t.Parallel()
	b, err := OpenMemory(&Options{Durability: Written})
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	c, err := b.NewSimpleConsumer("G", nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g, wake := c.group, make(chan struct{}, 1)
	g.mu.Lock()
	c.parked = append(c.parked, wake) // as awaitLocked does
	c.wakeOneLocked()
	g.mu.Unlock()
	require.NoError(t, c.drained(ctx))
}
