package meshtest

import (
	"os"
	"strconv"
	"testing"
)

// Soak is how many times as much a long test is to do: FAIRLEAD_SOAK, or 1.
func Soak(t *testing.T) int {
	t.Helper()
	text := os.Getenv("FAIRLEAD_SOAK")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("FAIRLEAD_SOAK is %q, not a number from 1", text)
	}
	return n
}
