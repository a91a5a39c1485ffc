package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Disk is a file system of its own in a file, whose power can be cut.
type Disk struct {
	Point string // where it is mounted
	image string
	kind  string
}

// Kinds of disks and how they are made.
var makers = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
	"xfs":  {"mkfs.xfs", "-q", "-f"},
}

const (
	// shutdownRequest is EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, shutdownNoFlush
	// EXT4_GOING_FLAGS_NOLOGFLUSH and XFS_FSOP_GOING_FLAGS_NOLOGFLUSH: the file
	// system stops where it is, without writing its journal out.
	shutdownRequest = 0x8004587d
	shutdownNoFlush = 2
)

// CanMount says why nothing can be mounted here, or nothing.
func CanMount(kind string) string {
	if os.Geteuid() != 0 {
		return "mounting needs root"
	}
	if !Isolated() {
		return "no mount namespace of its own"
	}
	if m, ok := makers[kind]; ok {
		if _, err := exec.LookPath(m[0]); err != nil {
			return m[0] + " is not installed"
		}
	}
	return ""
}

// NewDisk makes and mounts a file system of a kind in dir. What it cannot do
// says why: there may be no loop devices here.
func NewDisk(ctx context.Context, dir, kind string, bytes int64) (*Disk, error) {
	d := &Disk{Point: filepath.Join(dir, "mnt"), image: filepath.Join(dir, "image"), kind: kind}
	if err := os.Mkdir(d.Point, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(bytes), f.Close()); err != nil {
		return nil, err
	}
	maker := makers[kind]
	if err := command(ctx, append(maker, d.image)...); err != nil {
		return nil, err
	}
	return d, d.Mount(ctx)
}

// NewTmpfs mounts an empty file system in memory, which is as full as it gets at
// so many bytes.
func NewTmpfs(ctx context.Context, dir string, bytes int64) (*Disk, error) {
	d := &Disk{Point: filepath.Join(dir, "mnt"), kind: "tmpfs"}
	if err := os.Mkdir(d.Point, 0o700); err != nil {
		return nil, err
	}
	return d, command(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", bytes), "pocketmq", d.Point)
}

func command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Mount mounts the disk; the loop device goes when it is unmounted.
func (d *Disk) Mount(ctx context.Context) error {
	return command(ctx, "mount", "-t", d.kind, "-o", "loop", d.image, d.Point)
}

// Cut cuts the power: nothing that is not on the disk now gets there.
func (d *Disk) Cut() error {
	f, err := os.Open(d.Point)
	if err != nil {
		return err
	}
	defer f.Close()
	how := uint32(shutdownNoFlush)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdownRequest, uintptr(unsafe.Pointer(&how))); e != 0 {
		return fmt.Errorf("shut %s down: %w", d.Point, e)
	}
	return nil
}

// Unmount takes the disk away. Somebody who has just ended may still hold it for
// a moment.
func (d *Disk) Unmount() error {
	var err error
	for range 100 {
		if err = syscall.Unmount(d.Point, 0); err != syscall.EBUSY {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", d.Point, err)
	}
	return nil
}

// Remount is power off and on: what was only in memory is forgotten, and the
// file system's own recovery runs.
func (d *Disk) Remount(ctx context.Context) error {
	if err := d.Unmount(); err != nil {
		return err
	}
	return d.Mount(ctx)
}

// Close unmounts the disk, whatever uses it. Twice is no error.
func (d *Disk) Close() error {
	err := d.Unmount()
	if errors.Is(err, syscall.EINVAL) {
		return nil // not mounted
	}
	if err != nil {
		err = syscall.Unmount(d.Point, syscall.MNT_DETACH)
	}
	return err
}
