package syscalls

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFaultsAreInjected: each kind of fault does to the N-th call what it says.
func TestFaultsAreInjected(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	if why := usable(t.Context(), t.TempDir()); why != "" {
		t.Skip(why)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("text"), 0o600))
	for _, f := range faultsOf("openat") {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "trace")
			p := &probe{paths: map[string][]string{"openat": {file}}}
			args := append(injecting(out, p, "openat", f, 2), "cat", file, file)
			printed, err := command(t.Context(), args...)
			require.Error(t, err, "%s", printed)
			require.Contains(t, string(printed), "text", "the first call went well")
			require.Equal(t, f.kills, err.(*exec.ExitError).ExitCode() < 0, "%v", err)
			hit, err := fired(out)
			require.NoError(t, err)
			require.True(t, hit)
		})
	}
}

func TestReadProbe(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "trace")
	require.NoError(t, os.WriteFile(out, []byte(`12 openat(AT_FDCWD</>, "/run/store/a", O_RDWR) = 3</run/store/a>
12 openat(AT_FDCWD</>, "/sys/b", O_RDONLY) = 4</sys/b>
12 pwrite64(3</run/store/a>, "x", 1, 0 <unfinished ...>
13 msync(0x7f, 4096, MS_SYNC) = 0
12 <... pwrite64 resumed>) = 1
`), 0o600))
	p, err := readProbe(out, "/run")
	require.NoError(t, err)
	require.Equal(t, map[string]int{"openat": 1, "pwrite64": 1, "msync": 1}, p.counts)
	require.Equal(t, map[string][]string{"openat": {"/run/store/a"}, "pwrite64": {"/run/store/a"}}, p.paths)
}
