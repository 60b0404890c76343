package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// runtimeDir is where the sockets are, mode 0700. Paths of sockets are short, so
// it is not in the state directory. Its agent holds a lock in it, by which
// others know one that was left over when an agent was killed.
type runtimeDir struct {
	path string
	lock *os.File
}

const (
	runtimePrefix = "fairlead-agent-"
	runtimeLock   = "lock"
	// sweepAfter leaves an agent that starts the time to take its lock.
	sweepAfter = 10 * time.Second
	// maxSocketPath is the kernel's limit.
	maxSocketPath = 107
)

func newRuntimeDir(now time.Time) (*runtimeDir, error) {
	sweepRuntimeDirs(now)
	path, err := os.MkdirTemp("", runtimePrefix)
	if err != nil {
		return nil, fmt.Errorf("make a directory for sockets: %w", err)
	}
	d := &runtimeDir{path: path}
	if len(d.sockets().admin) > maxSocketPath {
		return nil, errors.Join(fmt.Errorf("make a directory for sockets: %s is too long for a socket's path; set TMPDIR to a shorter one", path), d.remove())
	}
	if d.lock, err = lockFile(filepath.Join(path, runtimeLock)); err != nil {
		return nil, errors.Join(fmt.Errorf("make a directory for sockets: %w", err), d.remove())
	}
	return d, nil
}

func (d *runtimeDir) sockets() sockets {
	return sockets{xds: filepath.Join(d.path, "xds.sock"), admin: filepath.Join(d.path, "admin.sock")}
}

func (d *runtimeDir) remove() error {
	err := os.RemoveAll(d.path)
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// sweepRuntimeDirs removes what agents of this user left over. It is a courtesy:
// what it cannot remove, stays.
func sweepRuntimeDirs(now time.Time) {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), runtimePrefix+"*"))
	if err != nil {
		return
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || now.Sub(info.ModTime()) < sweepAfter {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
			continue
		}
		lock, err := lockFile(filepath.Join(path, runtimeLock))
		if err != nil {
			continue // its agent runs
		}
		os.RemoveAll(path) //nolint:errcheck // see above
		lock.Close()       //nolint:errcheck // likewise
	}
}

// lockFile makes a file and takes its lock, which ends with the process.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errLocked, err, file.Close())
	}
	return file, nil
}

var errLocked = errors.New("locked by another process")
