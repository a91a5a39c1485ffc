//go:build unix

package mq_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
	"github.com/pocketmq/mq/mqtest"
)

// usedStore works on a store until it has files of every kind, and closes it.
func usedStore(t *testing.T, dir string, o *mq.Options) {
	t.Helper()
	b := mqtest.OpenDir(t, dir, o)
	for range 2 {
		sendBulk(t, b, "T", 1500)
	}
	c := pull(t, b, "G", "T", nil)
	require.NoError(t, c.Commit(t.Context(), poll(t, c, 100)...))
	require.NoError(t, b.Close())
}

func sendBulk(t *testing.T, b *mq.Broker, topic string, n int) {
	t.Helper()
	p := newProducer(t, b, nil)
	batch := numbered(topic, 0, n)
	for _, m := range batch {
		m.Keys, m.Body = []string{"key"}, make([]byte, 1000)
	}
	_, err := p.SendBatch(t.Context(), batch)
	require.NoError(t, err)
}

func foreignOptions() *mq.Options {
	return &mq.Options{Durability: mq.Written, SegmentBytes: 1 << 20, DefaultQueues: 1}
}

// TestStoreIsItsOwners: whatever the store makes, only its owner can read.
func TestStoreIsItsOwners(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "above", "store")
	usedStore(t, dir, foreignOptions())
	seen := map[string]bool{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		require.Equal(t, want, info.Mode().Perm(), name)
		rel, err := filepath.Rel(dir, name)
		require.NoError(t, err)
		for rel != "." && filepath.Dir(rel) != "." {
			rel = filepath.Dir(rel)
		}
		seen[rel] = seen[rel] || !d.IsDir()
		return nil
	}))
	for _, part := range []string{"LOCK", "RESERVE", "commitlog", "consumequeue", "index", "journal"} {
		require.True(t, seen[part], "no file in %s: nothing is shown of it", part)
	}
}

// tree is everything below a directory, and what it holds.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		all[name] = d.Type().String()
		if d.Type().IsRegular() {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			all[name] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		return nil
	}))
	return all
}

// TestSymbolicLinks: a link in place of a file or folder of the store leads
// nothing that the store does out of it: it is refused or replaced.
func TestSymbolicLinks(t *testing.T) {
	t.Parallel()
	model := filepath.Join(t.TempDir(), "store")
	usedStore(t, model, foreignOptions())
	var parts []string
	require.NoError(t, filepath.WalkDir(model, func(name string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(model, name)
		if rel != "." {
			parts = append(parts, rel)
		}
		return err
	}))
	for _, part := range parts {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			dir, outside := filepath.Join(root, "store"), filepath.Join(root, "outside")
			require.NoError(t, os.CopyFS(dir, os.DirFS(model)))
			require.NoError(t, os.Mkdir(outside, 0o700))
			moved := filepath.Join(outside, filepath.Base(part))
			require.NoError(t, os.Rename(filepath.Join(dir, part), moved))
			require.NoError(t, os.Symlink(moved, filepath.Join(dir, part)))
			before := tree(t, outside)

			b, err := mq.Open(dir, foreignOptions())
			if err == nil {
				for range 2 {
					sendBulk(t, b, "T", 1500)
				}
				require.NoError(t, b.Close())
			} else {
				t.Log(err)
			}
			require.Equal(t, before, tree(t, outside), "opened: %v", err)
		})
	}
}
