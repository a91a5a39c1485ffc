package commitlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
	"github.com/pocketmq/mq/internal/vfs"
)

// What is not synced must stay in the cache, where it alone is, and pages are
// asked for once, over all segments.
func TestForget(t *testing.T) {
	o := options(t, "mem")
	fsys := o.FS.(*vfs.Mem)
	o.SyncEvery, o.SyncBytes = 24*time.Hour, 1<<40
	l, _, _ := open(t, o, commitlog.Start{})
	body := string(make([]byte, 4000))
	var refs []commitlog.Ref
	for len(l.Segments()) < 3 {
		r, _ := put(t, l, body)
		refs = append(refs, r...)
	}
	fsys.Record()
	l.Forget(l.Written())
	assert.LessOrEqual(t, forgotten(fsys), int64(l.Synced()), "nothing that is not synced")
	require.NoError(t, l.Sync(t.Context()))
	fsys.Record()
	l.Forget(l.Synced() / 2)
	l.Forget(l.Synced())
	var used int64
	for _, s := range l.Segments() {
		used += int64(s.End - s.Base)
	}
	assert.InDelta(t, used, forgotten(fsys), 4096, "every byte once, but for a page that both had a part of")
	fsys.Record()
	l.Forget(l.Synced())
	assert.Zero(t, forgotten(fsys), "not again")
	for _, r := range refs {
		l.Read([]commitlog.Ref{r}, func(_ int, r commitlog.Record, err error) bool {
			require.NoError(t, err)
			require.Equal(t, body, bodyOf(r))
			return true
		})
	}
}

// forgotten sums up what the file system was told to forget since Record.
func forgotten(fsys *vfs.Mem) (n int64) {
	for _, c := range fsys.Ops() {
		if c.Op == vfs.OpForget {
			n += c.Size
		}
	}
	return n
}
