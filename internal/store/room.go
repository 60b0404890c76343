package store

import (
	"fmt"
	"syscall"
)

// minFree is the room, in bytes, that must be left on the disk of the embedded
// etcd for anything to be written. etcd ends the process when it cannot write:
// before that writes are refused, and reads and proxies go on. It makes files of
// 64 MB ahead of their use; the rest is for what is under way.
const minFree = 128 << 20

// room refuses a write while the disk is full.
func (s *Store) room() error {
	if !s.embedded() {
		return nil // an external etcd has a quota of its own
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(s.config.DataDir, &disk); err != nil {
		return fmt.Errorf("look for room in %s: %w: %w", s.config.DataDir, ErrUnavailable, err)
	}
	free := int64(disk.Bavail) * disk.Bsize //nolint:unconvert // other systems have other types
	full := free < minFree
	if s.full.Swap(full) != full {
		if full {
			s.log.Error("the disk is full: nothing is written until there is room again", "dir", s.config.DataDir, "free_mib", free>>20, "needed_mib", minFree>>20)
		} else {
			s.log.Info("there is room on the disk again", "dir", s.config.DataDir, "free_mib", free>>20)
		}
	}
	if full {
		return fmt.Errorf("%s has %d MiB left, %d are needed: %w", s.config.DataDir, free>>20, minFree>>20, ErrFull)
	}
	return nil
}
