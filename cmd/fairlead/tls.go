package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fairlead/fairlead/internal/ca"
)

// Lives of the server's own certificates. A leaf lives in memory only and is
// issued again when less than a third of its life is left.
const (
	serverCALife   = 10 * 365 * 24 * time.Hour
	serverLeafLife = 90 * 24 * time.Hour
)

// serverTLS gives every handshake of the server its certificate.
type serverTLS struct {
	certificate func() (*tls.Certificate, error)
	clientCA    func() (*x509.CertPool, error) // nil: clients need no certificate
}

// newServerTLS reads the given certificate files, or has the server's own
// authority issue for the addresses that it may be reached under.
func newServerTLS(c *serverConfig, log *slog.Logger) (*serverTLS, error) {
	t := &serverTLS{}
	if c.TLSCert != "" {
		files := &reloaded[*tls.Certificate]{files: []string{c.TLSCert, c.TLSKey}, log: log, load: func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
			return &pair, err
		}}
		t.certificate = files.get
	} else {
		own, err := newOwnCertificate(c.DataDir, hostNames(c.XDSAddress, c.APIAddress), time.Now)
		if err != nil {
			return nil, err
		}
		t.certificate = own.get
	}
	if _, err := t.certificate(); err != nil {
		return nil, fmt.Errorf("load the server's certificate: %w", err)
	}
	if c.TLSClientCA != "" {
		files := &reloaded[*x509.CertPool]{files: []string{c.TLSClientCA}, log: log, load: func() (*x509.CertPool, error) { return readPool(c.TLSClientCA) }}
		t.clientCA = files.get
		if _, err := t.clientCA(); err != nil {
			return nil, fmt.Errorf("load the authorities of clients: %w", err)
		}
	}
	return t, nil
}

// config is for one address. Sessions are not resumed where clients present
// certificates: a resumed one would not show it again.
func (t *serverTLS) config(protocols ...string) *tls.Config {
	base := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return t.certificate() },
	}
	if t.clientCA == nil {
		return base
	}
	base.ClientAuth = tls.RequireAndVerifyClientCert
	base.SessionTicketsDisabled = true
	outer := base.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, err := t.clientCA()
		if err != nil {
			return nil, err
		}
		now := base.Clone()
		now.ClientCAs = pool
		return now, nil
	}
	return outer
}

func readPool(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}

// reloaded is a value read from files, read again when one of them changes. A
// change that cannot be read keeps the last good value.
type reloaded[T any] struct {
	files []string
	load  func() (T, error)
	log   *slog.Logger

	mu    sync.Mutex
	value T
	have  bool
	seen  []fileState
}

// fileState tells one content of a file from another without reading it.
type fileState struct {
	modified time.Time
	size     int64
	inode    any
}

func (r *reloaded[T]) get() (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := make([]fileState, len(r.files))
	for i, file := range r.files {
		if info, err := os.Stat(file); err == nil {
			now[i] = fileState{info.ModTime(), info.Size(), inode(info)}
		}
	}
	if r.have && slices.Equal(now, r.seen) {
		return r.value, nil
	}
	value, err := r.load()
	if err != nil && !r.have {
		return value, err
	}
	r.seen = now
	if err != nil {
		r.log.Error("changed files cannot be read; going on with what they were", "files", r.files, "error", err)
		return r.value, nil
	}
	if r.have {
		r.log.Info("files have changed and were read again", "files", r.files)
	}
	r.value, r.have = value, true
	return value, nil
}

// ownCertificate issues the server's certificate from an authority that is
// kept in the data directory: agents trust DATA-DIR/server-ca.pem.
type ownCertificate struct {
	authority *ca.Authority
	names     ca.Names
	now       func() time.Time

	mu   sync.Mutex
	leaf *tls.Certificate
}

func newOwnCertificate(dataDir string, names ca.Names, now func() time.Time) (*ownCertificate, error) {
	certificateFile, keyFile := filepath.Join(dataDir, "server-ca.pem"), filepath.Join(dataDir, "server-ca.key")
	authority, err := loadAuthority(certificateFile, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = makeAuthority(certificateFile, keyFile, now())
	}
	if err != nil {
		return nil, err
	}
	return &ownCertificate{authority: authority, names: names, now: now}, nil
}

func loadAuthority(certificateFile, keyFile string) (*ca.Authority, error) {
	certificate, err := os.ReadFile(certificateFile)
	if err != nil {
		return nil, fmt.Errorf("load the server's authority: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("load the server's authority: %w", err)
	}
	return ca.Load(certificate, key)
}

// makeAuthority writes the key first: a certificate without its key would be
// trusted by agents and useless.
func makeAuthority(certificateFile, keyFile string, now time.Time) (*ca.Authority, error) {
	authority, err := ca.NewRoot("Fairlead server", now, serverCALife)
	if err != nil {
		return nil, err
	}
	key, err := authority.EncodeKey()
	if err != nil {
		return nil, err
	}
	if err := writeFile(keyFile, key, 0o600); err != nil {
		return nil, err
	}
	return authority, writeFile(certificateFile, authority.PEM(), 0o644)
}

// writeFile puts a file in place whole, or not at all.
func writeFile(name string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func (o *ownCertificate) get() (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if o.leaf != nil && o.leaf.Leaf.NotAfter.Sub(now) > serverLeafLife/3 {
		return o.leaf, nil
	}
	issued, err := o.authority.Issue(o.names, now, serverLeafLife)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(issued.Chain, issued.Key)
	if err != nil {
		return nil, fmt.Errorf("use the server's own certificate: %w", err)
	}
	o.leaf = &pair
	return o.leaf, nil
}

// hostNames are what clients on this host or on its networks call it.
func hostNames(addresses ...string) ca.Names {
	names := ca.Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	name := func(host string) { // what is no DNS name nobody can verify
		if ca.CheckDNSName(host) == nil && !slices.Contains(names.DNS, host) {
			names.DNS = append(names.DNS, host)
		}
	}
	if host, err := os.Hostname(); err == nil {
		name(host)
	}
	add := func(ip net.IP) {
		if !ip.IsUnspecified() && !slices.ContainsFunc(names.IPs, ip.Equal) {
			names.IPs = append(names.IPs, ip)
		}
	}
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); ip != nil {
			add(ip)
		} else {
			name(host)
		}
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return names // the names above will do
	}
	for _, address := range interfaces {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLinkLocalUnicast() {
			add(network.IP)
		}
	}
	return names
}
