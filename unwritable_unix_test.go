//go:build unix

package mq_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pocketmq/mq"
)

// nobody is the user that owns nothing.
const nobody = 65534

// TestUnwritableDirectory: a directory that cannot be written to is an error,
// not a store in memory. To root nothing is unwritable, so root runs this test
// as somebody else.
func TestUnwritableDirectory(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		runAsNobody(t)
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500)) //nolint:gosec // that is the point
	_, err := mq.Open(dir, nil)
	require.ErrorIs(t, err, mq.ErrDirectory)
	_, err = mq.Open(filepath.Join(dir, "below"), nil)
	require.ErrorIs(t, err, mq.ErrDirectory)
}

// runAsNobody runs the calling test once more, in a process without rights. Its
// program has to lie where such a process may look.
func runAsNobody(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nobody")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777)) //nolint:gosec // for nobody, and for a minute
	program, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	name := filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(name, program, 0o755)) //nolint:gosec // nobody runs it

	child := exec.CommandContext(t.Context(), name, "-test.run=^"+t.Name()+"$", "-test.v")
	child.Dir = dir
	child.Env = append(os.Environ(), "TMPDIR="+dir)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}
