// Package pki uses ACM and Private CA as users do: real AWS clients and openssl
// on a real server.
package pki

import (
	"os"
	"testing"

	"github.com/fairlead/fairlead/internal/meshtest"
)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }
