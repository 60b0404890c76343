package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fairlead/fairlead/internal/kek"
)

// lockDir takes the data directory for this process. The kernel gives it back
// when the process ends, however it ends.
func lockDir(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// writeFile makes a file of mode 0600 that is there whole or not at all, also
// after a power cut.
func writeFile(path string, content []byte) error {
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return rename(part, path)
}

// rename moves a file or directory within its directory, durably.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	return nil
}

// loadKEK finds the key-encryption key. Only for a new embedded store it makes
// one: beside an existing store a new key would open nothing and hide the loss
// of the old one.
func (s *Store) loadKEK() (kek.Key, error) {
	key := s.config.KEK
	if key == nil {
		if s.config.KEKFile == "" && !s.embedded() {
			return nil, errors.New("read key-encryption key: an external etcd needs a KEK file: the key must not be where the data is")
		}
		key = kek.File{Path: s.kekPath()}
	}
	if path := s.kekPath(); key == (kek.File{Path: path}) && s.config.KEKFile == "" {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if _, err := os.Stat(s.etcdDir()); err == nil {
				return nil, fmt.Errorf("read key-encryption key: %s is missing, but the store that it opens exists: %w", path, ErrWrongKEK)
			}
			if err := writeFile(path, kek.NewFileContent()); err != nil {
				return nil, fmt.Errorf("make key-encryption key: %w", err)
			}
		}
	}
	s.warnReadable(key)
	return key, nil
}

// warnReadable says so if others may read the secret that a key is kept by.
func (s *Store) warnReadable(key kek.Key) {
	var path string
	switch key := key.(type) {
	case kek.File:
		path = key.Path
	case *kek.Passphrase:
		path = key.File()
	case kek.PKCS11:
		path = key.PIN
	}
	if path == "" {
		return
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		s.log.Warn("others may read the key-encryption key", "file", path, "mode", info.Mode().Perm().String())
	}
}
