package kek

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// askTerminal asks for a line on the terminal of this process and does not show
// what is typed.
func askTerminal(question string) (line []byte, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no terminal to ask on: name a file, passphrase:PATH: %w", err)
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("ask on the terminal: %w", err)
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return nil, fmt.Errorf("ask on the terminal: %w", err)
	}
	defer func() {
		err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETSF, before))
		fmt.Fprintln(tty)
	}()
	fmt.Fprint(tty, question)
	buffer := make([]byte, maxFile)
	n, err := tty.Read(buffer) // a line: the terminal is in canonical mode
	if err != nil {
		return nil, fmt.Errorf("read from the terminal: %w", err)
	}
	return buffer[:n], nil
}
