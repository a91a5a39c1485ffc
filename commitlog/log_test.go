package commitlog_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
)

func TestAppendReadReopen(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, o commitlog.Options) {
		l, rec, _ := open(t, o, commitlog.Start{})
		assert.True(t, rec.Clean)
		bodies := numbered(3000, 500) // six segments
		var refs []commitlog.Ref
		for i, b := range bodies {
			if i%10 == 3 {
				continue // goes with the one before
			}
			group := bodies[i : i+1]
			if i%10 == 2 {
				group = bodies[i : i+2]
			}
			r, end := put(t, l, group...)
			refs = append(refs, r...)
			assert.Equal(t, end, l.Written())
			_ = b
		}
		assert.Equal(t, bodies, read(t, l, refs))
		require.NoError(t, l.Sync(context.Background()))
		assert.Equal(t, l.Written(), l.Synced())
		assert.Equal(t, bodies, read(t, l, refs))
		assert.Equal(t, bodies, scan(t, l))
		assert.Greater(t, len(l.Segments()), 4)
		for i := range refs {
			refs[i].Size = 0
		}
		assert.Equal(t, bodies, read(t, l, refs))
		written := l.Written()
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())

		l, rec, again := open(t, o, commitlog.Start{Synced: written, Clean: true})
		assert.Equal(t, bodies, again)
		assert.True(t, rec.Clean)
		assert.Equal(t, written, l.Written())
		assert.Equal(t, uint32(1), l.Epoch())
		assert.Equal(t, bodies, read(t, l, refs))
		put(t, l, "more")
		require.NoError(t, l.Close())

		l, rec, again = open(t, o, commitlog.Start{})
		assert.Equal(t, append(bodies, "more"), again)
		assert.False(t, rec.Clean)
		assert.Empty(t, rec.Corrupt)
		assert.Empty(t, rec.Cut)
		assert.Equal(t, uint32(2), l.Epoch())
	})
}
