package main

import (
	"log/slog"
	"os"
	"path/filepath"
)

// warnOpen says which of the server's files other users of this host can read,
// or replace. They are made for one user; somebody may have opened them since,
// for a reason. (The store says it of the key-encryption key.)
func warnOpen(c *serverConfig, log *slog.Logger) {
	for _, secret := range []struct{ path, what string }{
		{filepath.Join(c.DataDir, "credentials"), "the root key"},
		{filepath.Join(c.DataDir, "server-ca.key"), "the key of the server's own authority"},
		{c.TLSKey, "the server's private key"},
	} {
		if info, err := os.Stat(secret.path); err == nil && info.Mode().Perm()&0o077 != 0 {
			log.Warn("others may read "+secret.what, "file", secret.path, "mode", info.Mode().Perm().String())
		}
	}
	if info, err := os.Stat(c.DataDir); err == nil && info.Mode().Perm()&0o022 != 0 {
		log.Warn("others may replace the files of the data directory", "dir", c.DataDir, "mode", info.Mode().Perm().String())
	}
}
