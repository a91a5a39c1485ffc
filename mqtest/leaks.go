package mqtest

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"
)

// label marks the goroutine of a test. Goroutines have the labels of the one
// that started them, so that those of a broker can be told from those of another
// that a parallel test has.
const label = "mqtest"

// watched counts the brokers that tests have open, by test name.
var watched struct {
	sync.Mutex
	open map[string]int
}

// watch sees to it that when the last broker of t is closed, none of the
// goroutines that began since runs in PocketMQ any more. It is called before
// a broker is opened, so that its check is the last one.
func watch(t testing.TB) {
	t.Helper()
	name := t.Name()
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(label, name)))
	watched.Lock()
	if watched.open == nil {
		watched.open = map[string]int{}
	}
	watched.open[name]++
	watched.Unlock()
	t.Cleanup(func() {
		watched.Lock()
		watched.open[name]--
		last := watched.open[name] == 0
		watched.Unlock()
		if last && !t.Failed() {
			noneLeft(t, name)
		}
	})
}

// waitFor is how long Eventually waits, and how long goroutines have to end
// after what they did is done. Machines that run tests are slow at times.
const waitFor = 20 * time.Second

// noneLeft fails the test if goroutines with the label are in PocketMQ.
func noneLeft(t testing.TB, name string) {
	t.Helper()
	var left []string
	if !poll(func() bool {
		left = running(name)
		return len(left) == 0
	}) {
		t.Errorf("mqtest: goroutines left running:\n%s", strings.Join(left, "\n\n"))
	}
}

// poll waits until cond holds.
func poll(cond func() bool) bool {
	deadline := time.Now().Add(waitFor)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(wait)
	}
}

// Eventually waits until cond holds, and fails the test if that takes too long.
// The last arguments, as for fmt.Sprintf, say what was waited for. It is for
// what ends on another goroutine and tells nobody.
func Eventually(t testing.TB, cond func() bool, format string, args ...any) {
	t.Helper()
	if !poll(cond) {
		t.Fatalf("mqtest: not within %v: %s", waitFor, fmt.Sprintf(format, args...))
	}
}

// running returns the stacks of goroutines with the label that are in PocketMQ.
func running(name string) (stacks []string) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return []string{err.Error()}
	}
	mark := fmt.Sprintf("%q:%q", label, name)
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, mark) && inside(stack) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// inside reports whether a goroutine belongs to PocketMQ: of its functions that
// do, the outermost is not in a test. So a worker that calls the handler of a
// test is ours, and a goroutine of a test that calls us is not.
func inside(stack string) bool {
	ours := false
	for line := range strings.Lines(stack) {
		// #	0x4b1c85	github.com/pocketmq/mq.(*worker).run+0x85	/…/worker.go:80
		if _, function, ok := strings.Cut(line, "\tgithub.com/pocketmq/mq"); ok {
			ours = !strings.HasPrefix(function, "/mqtest.") && !strings.Contains(line, "_test.go:")
		}
	}
	return ours
}
