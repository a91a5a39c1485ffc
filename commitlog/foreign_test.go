package commitlog_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq/commitlog"
)

// TestForeignHands: what is stored in a file that somebody else has removed or
// cut goes with it. A sync that says nothing would be a lie.
func TestForeignHands(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files in use cannot be removed or cut")
	}
	for _, mode := range []string{"mapped", "portable"} {
		for name, act := range map[string]func(file string) error{
			"removed":   os.Remove,
			"all gone":  func(file string) error { return os.RemoveAll(filepath.Dir(file)) },
			"cut":       func(file string) error { return os.Truncate(file, 0) },
			"cut ahead": func(file string) error { return os.Truncate(file, 128<<10) },
		} {
			t.Run(mode+" "+name, func(t *testing.T) {
				t.Parallel()
				o := options(t, mode)
				l, _, _ := open(t, o, commitlog.Start{})
				_, end := put(t, l, "a")
				require.NoError(t, l.Wait(ctx, end))
				require.NoError(t, act(filepath.Join(o.Dir, segmentName(l.Segments()[0].Base))))
				_, end, err := tryPut(ctx, l, commitlog.Wait, "b")
				if err == nil {
					err = l.Wait(ctx, end)
				}
				require.ErrorIs(t, err, commitlog.ErrPoisoned)
				require.ErrorIs(t, l.Err(), commitlog.ErrPoisoned)
			})
		}
	}
}
