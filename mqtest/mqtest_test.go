package mqtest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// spy is a test that may fail without this one failing.
type spy struct {
	testing.TB
	name     string
	cleanups []func()
	errors   []string
}

func (s *spy) Name() string              { return s.name }
func (s *spy) Cleanup(f func())          { s.cleanups = append(s.cleanups, f) }
func (s *spy) Failed() bool              { return len(s.errors) > 0 }
func (s *spy) Helper()                   {}
func (s *spy) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (s *spy) Errorf(f string, a ...any) { s.errors = append(s.errors, fmt.Sprintf(f, a...)) }

func (s *spy) end() []string {
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	return s.errors
}

func newSpy(t *testing.T, name string) *spy { return &spy{TB: t, name: t.Name() + name} }

func use(t *testing.T, b *mq.Broker) {
	t.Helper()
	ctx := context.Background()
	p, err := b.NewProducer(nil)
	require.NoError(t, err)
	for range 100 {
		_, err = p.Send(ctx, &mq.Message{Topic: "T", Tag: "a", Keys: []string{"k"}, Body: []byte("body")})
		require.NoError(t, err)
	}
	c, err := b.NewPullConsumer("G", nil)
	require.NoError(t, err)
	require.NoError(t, c.Subscribe("T", mq.All))
	_, err = c.Poll(ctx, 10)
	require.NoError(t, err)
	require.NoError(t, c.Commit(ctx))
}

func TestSound(t *testing.T) {
	t.Parallel()
	var group sync.WaitGroup
	defer group.Wait()
	for range 4 { // parallel tests do not see each other's goroutines
		group.Go(func() {
			disk := newSpy(t, "/disk")
			use(t, mqtest.Open(disk, nil))
			require.Empty(t, disk.end())
		})
	}
	memory := newSpy(t, "/memory")
	use(t, mqtest.OpenMemory(memory, nil))
	require.Empty(t, memory.end())
}

// TestClosedByTheTest: the store is checked all the same.
func TestClosedByTheTest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSpy(t, "/spy")
	b := mqtest.OpenDir(s, dir, nil)
	use(t, b)
	require.NoError(t, b.Close())
	b = mqtest.OpenDir(s, dir, nil)
	use(t, b)
	require.Empty(t, s.end())
}
