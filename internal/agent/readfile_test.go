package agent

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadFile: files and links to files are read; of all else it is said what
// it is, at once.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(in("file"), []byte("0123456789"), 0o600), os.Symlink("file", in("link")), os.Symlink("loop", in("loop")),
		os.Mkdir(in("directory"), 0o700), syscall.Mkfifo(in("pipe"), 0o600), os.Symlink("pipe", in("link-to-pipe")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, test := range []struct {
		path, want string
		most       int64
	}{
		{in("file"), "", 10},
		{in("link"), "", 10},
		{in("file"), "is larger than 9 bytes", 9},
		{in("missing"), "no such file", 10},
		{in("loop"), "too many levels", 10},
		{in("directory"), "is a directory", 10},
		{in("pipe"), "is a pipe", 10},
		{in("link-to-pipe"), "is a pipe", 10},
		{in("socket"), "is a socket", 10},
		{"/dev/zero", "is a device", 10},
		{"/dev/null", "is a device", 10},
		{"/proc/self/environ", "is in /proc", 1 << 20},
		{"/proc/self/maps", "is in /proc", 1 << 20},
	} {
		began := time.Now()
		content, err := readFile(test.path, test.most)
		switch {
		case test.want == "" && (err != nil || string(content) != "0123456789"):
			t.Errorf("%s: %q, %v", test.path, content, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %q, %v; want %q", test.path, content, err, test.want)
		case time.Since(began) > 5*time.Second:
			t.Errorf("%s took %s", test.path, time.Since(began))
		}
	}
}
