// Package mqtest opens brokers for tests. What it opens it closes when the test
// ends, and it checks then that the store is sound and that nothing was left
// running:
//
//	func TestOrders(t *testing.T) {
//		b := mqtest.Open(t, nil)
//		…
//	}
//
// There are no mocks: the brokers are real ones.
package mqtest

import (
	"context"
	"errors"
	"testing"

	"github.com/pocketmq/mq"
)

// Open opens a broker in a new directory of its own. Nil options are the
// defaults. When the test ends the broker is checked and closed; then the store
// is opened again, which must find it clean, and checked once more. The test may
// close the broker itself.
func Open(t testing.TB, options *mq.Options) *mq.Broker {
	t.Helper()
	return OpenDir(t, t.TempDir(), options)
}

// OpenDir is Open for a directory of the caller's choice, for instance that of a
// broker it closed before. A directory has one broker at a time.
func OpenDir(t testing.TB, dir string, options *mq.Options) *mq.Broker {
	t.Helper()
	watch(t)
	b, err := mq.Open(dir, options)
	if err != nil {
		t.Fatalf("mqtest: open %s: %v", dir, err)
	}
	t.Cleanup(func() {
		finish(t, b)
		if !t.Failed() && b.Stats().Poisoned == nil {
			again(t, dir, options)
		}
	})
	return b
}

// OpenMemory opens a broker in memory. When the test ends it is checked and
// closed. The test may close the broker itself, which leaves nothing to check.
func OpenMemory(t testing.TB, options *mq.Options) *mq.Broker {
	t.Helper()
	watch(t)
	b, err := mq.OpenMemory(options)
	if err != nil {
		t.Fatalf("mqtest: open in memory: %v", err)
	}
	t.Cleanup(func() { finish(t, b) })
	return b
}

// finish checks and closes b.
func finish(t testing.TB, b *mq.Broker) {
	t.Helper()
	if err := b.Check(context.Background()); err != nil && !errors.Is(err, mq.ErrClosed) {
		t.Errorf("mqtest: the store is not sound: %v", err)
	}
	if err := b.Close(); err != nil && b.Stats().Poisoned == nil {
		t.Errorf("mqtest: close: %v", err)
	}
}

// again opens a closed store and checks what a later run would find.
func again(t testing.TB, dir string, options *mq.Options) {
	t.Helper()
	var o mq.Options
	if options != nil {
		o = *options
	}
	o.Hooks = nil // the test is over
	b, err := mq.Open(dir, &o)
	if errors.Is(err, mq.ErrLocked) {
		return // the test goes on with this store, and opened it itself
	}
	if err != nil {
		t.Errorf("mqtest: open again: %v", err)
		return
	}
	if found := b.Recovery(); !found.Clean {
		t.Errorf("mqtest: the store was not closed cleanly: %+v", found)
	}
	finish(t, b)
}
