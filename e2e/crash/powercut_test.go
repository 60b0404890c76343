//go:build root

package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// disk is a file system in a file, whose power can be cut: then everything that
// was not synced is gone, as it is on a real disk.
type disk struct {
	image, mount string
}

func newDisk(t *testing.T, fileSystem string) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{image: filepath.Join(dir, "image"), mount: filepath.Join(dir, "mount")}
	if err := os.Mkdir(d.mount, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(d.image)
	if err == nil {
		err = errors.Join(file.Truncate(1<<30), file.Close()) // sparse
	}
	if err == nil {
		err = command("mkfs."+fileSystem, "-q", d.image)
	}
	if err == nil {
		err = d.plugIn()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := command("umount", d.mount); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *disk) plugIn() error { return command("mount", "-o", "loop", d.image, d.mount) }

// cut makes the file system forget what was not synced, from now on.
func (d *disk) cut() error { return command("xfs_io", "-x", "-c", "shutdown", d.mount) }

// repair mounts the file system again, which replays its journal.
func (d *disk) repair() error {
	if err := command("umount", d.mount); err != nil {
		return err
	}
	return d.plugIn()
}

func command(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// cuts runs servers on a disk whose power is cut again and again.
func cuts(t *testing.T, d *disk, r *run, times int) error {
	for range times {
		err := r.life(t.Context(), func(p *process) error { return errors.Join(d.cut(), p.kill()) })
		if err := errors.Join(err, d.repair()); err != nil {
			return err
		}
	}
	return r.verdict(t.Context())
}

// The power is cut ten times, five on each file system.
func TestPowerCutLosesNothing(t *testing.T) {
	server := binary(t)
	for _, fileSystem := range []string{"ext4", "xfs"} {
		t.Run(fileSystem, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			d := newDisk(t, fileSystem)
			r := newRun(t, server, filepath.Join(d.mount, "data"), seed)
			if err := cuts(t, d, r, 5*meshtest.Soak(t)); err != nil {
				t.Errorf("%v\n%s", err, tail(r.log))
			}
			r.report(t)
		})
	}
}

// A server that does not sync is caught by the same test: the cuts are real.
func TestPowerCutWithoutSyncIsCaught(t *testing.T) {
	server := binary(t)
	for _, fileSystem := range []string{"ext4", "xfs"} {
		t.Run(fileSystem, func(t *testing.T) {
			t.Parallel() // they mostly wait
			d := newDisk(t, fileSystem)
			r := newRun(t, server, filepath.Join(d.mount, "data"), 1, "--unsafe-no-fsync")
			err := cuts(t, d, r, 3)
			if err == nil {
				t.Fatal("three power cuts without fsync went unnoticed")
			}
			lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
			t.Logf("noticed: %s … %s", lines[0], lines[len(lines)-1])
		})
	}
}
