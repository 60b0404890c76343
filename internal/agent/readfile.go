package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Bounds of the files that an agent reads. Specs, which others write, name some
// of them.
const (
	// maxSecretFile bounds a certificate file: a bundle of all public roots has
	// 250 KiB.
	maxSecretFile = 4 << 20
	// maxStateFile bounds the configuration on the disk.
	maxStateFile = 256 << 20
	// readTimeout bounds the reading of what looks like a file and waits like a
	// pipe: the kernel's own file systems have such.
	readTimeout = 250 * time.Millisecond
)

// procFS is the type of /proc (statfs(2)). What is there is the kernel's and
// other processes', never a certificate.
const procFS = 0x9fa0

// readFile reads a regular file, or what a link to one leads to, of at most so
// many bytes. Of anything else it says what it is, and never waits for it: the
// first read of a pipe would wait for ever, that of a device never end.
func readFile(path string, most int64) ([]byte, error) {
	// Opening alone can do harm: /dev/watchdog would start to count down.
	if info, err := os.Stat(path); err == nil {
		if err := regular(path, info); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil { // it may have been another one
		err = regular(path, info)
	}
	if err != nil {
		return nil, err
	}
	if kind, err := fileSystem(file); err == nil && kind == procFS {
		return nil, fmt.Errorf("%s is in /proc, where no certificates are", path)
	}
	// Files on a disk know no deadline, and need none.
	if err := file.SetReadDeadline(time.Now().Add(readTimeout)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return content, nil
}

// fileSystem is the type of the file system that a file is on. Fd would take
// the file's deadline away.
func fileSystem(file *os.File) (kind int64, err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var system syscall.Statfs_t
	controlErr := conn.Control(func(fd uintptr) { err = syscall.Fstatfs(int(fd), &system) })
	return int64(system.Type), errors.Join(controlErr, err)
}

func regular(path string, info os.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return fmt.Errorf("%s is a directory, not a file", path)
	case mode&os.ModeNamedPipe != 0:
		return fmt.Errorf("%s is a pipe, not a file", path)
	case mode&os.ModeSocket != 0:
		return fmt.Errorf("%s is a socket, not a file", path)
	}
	return fmt.Errorf("%s is a device, not a file", path)
}
