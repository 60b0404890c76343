package main

import (
	"io/fs"
	"syscall"
)

// inode tells a replaced file from a changed one.
func inode(info fs.FileInfo) any {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return nil
}
