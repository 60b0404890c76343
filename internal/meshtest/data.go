package meshtest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead/fairlead/internal/tlspolicy"
)

// CopyData copies the data of a server that is not running: a backup to start
// from later with RestartWith. It has the same keys and the same authority.
func (s *Server) CopyData(t testing.TB) (dir string) {
	t.Helper()
	if s.Running() {
		t.Fatal("the data of a running server cannot be copied")
	}
	dir = filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(s.DataDir)); err != nil {
		t.Fatalf("copy %s: %v", s.DataDir, err)
	}
	// os.CopyFS keeps no modes of folders.
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o700)
	})
	if err != nil {
		t.Fatalf("copy %s: %v", s.DataDir, err)
	}
	return dir
}

// EmptyData is a new data directory with the server's certificate authority
// alone: agents still trust the server, and its store is new.
func (s *Server) EmptyData(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"server-ca.pem", "server-ca.key"} {
		content, err := os.ReadFile(filepath.Join(s.DataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ProxyStatus is a connected proxy, as fairlead proxy list -o json shows it.
type ProxyStatus struct {
	Resource string `json:"resource"`
	Address  string `json:"address"`
	Settled  bool   `json:"settled"`
	Held     string `json:"held"`
	Revision int64  `json:"revision"`
	Types    []struct {
		Type     string `json:"type"`
		Revision int64  `json:"ackedRevision"`
		Rejected []struct {
			Name    string `json:"name"`
			Message string `json:"message"`
		} `json:"rejected"`
	} `json:"types"`
	Report struct {
		Ready   bool `json:"ready"`
		Secrets []struct {
			Name   string `json:"name"`
			Loaded bool   `json:"loaded"`
			Error  string `json:"error"`
		} `json:"secrets"`
		Problems []string `json:"problems"`
	} `json:"report"`
}

// Proxies are the proxies that are connected to the server.
func (s *Server) Proxies(t testing.TB) ([]ProxyStatus, error) {
	t.Helper()
	var list struct {
		Proxies []ProxyStatus `json:"proxies"`
	}
	err := s.JSON(t, &list, "proxy", "list")
	return list.Proxies, err
}

// WaitSettled waits until that many proxies are connected and each holds what
// it is to hold.
func (s *Server) WaitSettled(t testing.TB, proxies int) {
	t.Helper()
	Eventually(t, 60*time.Second, func(context.Context) error {
		list, err := s.Proxies(t)
		if err != nil {
			return err
		}
		settled := 0
		for _, p := range list {
			if p.Settled && p.Held == "" {
				settled++
			}
		}
		if settled != proxies || len(list) != proxies {
			return fmt.Errorf("%d of %d connected proxies are settled, want %d: %+v", settled, len(list), proxies, list)
		}
		return nil
	})
}

// Edge is a row of fairlead edges -o json.
type Edge struct {
	Client     string            `json:"client"`
	Server     string            `json:"server"`
	Port       int               `json:"port"`
	Protocol   string            `json:"protocol"`
	Services   []string          `json:"services"`
	Cluster    string            `json:"cluster"`
	Verdict    tlspolicy.Verdict `json:"verdict"`
	Predicted  tlspolicy.Verdict `json:"predicted"`
	Observed   bool              `json:"observed"`
	Why        string            `json:"why"`
	Handshakes int               `json:"handshakes"`
	// ServerHandshakes are those of the server's Envoys with all their clients.
	ServerHandshakes int `json:"serverHandshakes"`
	Failures         []struct {
		At      string `json:"at"`
		Counter string `json:"counter"`
		Count   int    `json:"count"`
	} `json:"failures"`
}

// Edges are the edges of a mesh.
func (s *Server) Edges(t testing.TB, mesh string) ([]Edge, error) {
	t.Helper()
	var list struct {
		Edges []Edge `json:"edges"`
	}
	err := s.JSON(t, &list, "edges", mesh)
	return list.Edges, err
}

// Problem is a row of fairlead problems -o json.
type Problem struct {
	Resource string `json:"resource"`
	Field    string `json:"field"`
	Message  string `json:"message"`
}

// Problems are what is wrong in a mesh.
func (s *Server) Problems(t testing.TB, mesh string) ([]Problem, error) {
	t.Helper()
	var list struct {
		Problems []Problem `json:"problems"`
	}
	err := s.JSON(t, &list, "problems", mesh)
	return list.Problems, err
}
