package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/fsnotify/fsnotify"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/mesh"
)

const (
	// pollFiles finds what the kernel did not tell, on network file systems and
	// under directories that come later.
	pollFiles = 10 * time.Second
	// settleFiles lets a writer finish: chain and key are two files.
	settleFiles = 50 * time.Millisecond
)

// fileSecrets are the secrets that this agent serves: of certificate files, and
// those that it was issued (own.go). It keeps for each the last
// pair that was whole: a file that is missing, half written or not the other's
// key changes nothing but the status. Files stay on this host.
type fileSecrets struct {
	now func() time.Time
	log *slog.Logger
	// changed is told after any change of a secret or its status.
	changed func()

	mu      sync.Mutex
	secrets map[string]*fileSecret
	watched map[string]bool // directories
	holders map[string]int  // streams of Envoy that have acknowledged a secret, by its name
	watch   chan struct{}   // something new to watch
	subs    map[chan<- struct{}]bool
}

// fileSecret is one secret with its state.
type fileSecret struct {
	name    string
	files   envoy.FileSecret
	own     bool   // not of files: issued to this agent
	version string // of the good content; empty: none yet
	any     *anypb.Any
	problem string // why the files are not served as they are; empty: they are
	refused string // Envoy's message about this version
	expires time.Time
	loaded  time.Time
	digest  [sha256.Size]byte // of what was read last, good or not
}

func newFileSecrets(now func() time.Time, log *slog.Logger) *fileSecrets {
	return &fileSecrets{now: now, log: log, secrets: map[string]*fileSecret{}, watched: map[string]bool{}, holders: map[string]int{},
		watch: make(chan struct{}, 1), subs: map[chan<- struct{}]bool{}}
}

// want makes names known: new ones are read before it returns, those that are
// not named any longer are forgotten.
func (f *fileSecrets) want(names []string) {
	f.mu.Lock()
	changed := false
	for name := range f.secrets {
		if !slices.Contains(names, name) {
			delete(f.secrets, name)
			changed = true
		}
	}
	for _, name := range names {
		if f.secrets[name] == nil {
			f.secrets[name] = newFileSecret(name)
			f.load(f.secrets[name])
			changed = true
		}
	}
	f.mu.Unlock()
	if changed {
		f.tell()
		select {
		case f.watch <- struct{}{}:
		default:
		}
	}
}

func newFileSecret(name string) *fileSecret {
	if mesh.IsOwnCertificate(name) {
		return &fileSecret{name: name, own: true, problem: "the server has not issued it yet"}
	}
	return &fileSecret{name: name}
}

// own are the names of the secrets that are to be issued to this agent.
func (f *fileSecrets) own() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := map[string]bool{}
	for name, s := range f.secrets {
		if s.own {
			names[name] = true
		}
	}
	return names
}

// put serves a certificate that was issued to this agent. One that is not named
// any longer is dropped.
func (f *fileSecrets) put(name, chain string, key []byte) error {
	made, expires, err := makeSecret(name, envoy.FileSecret{Chain: name, Key: name}, []byte(chain), key)
	if err != nil {
		return err
	}
	packed, err := anypb.New(made)
	if err != nil {
		return fmt.Errorf("write secret: %w", err)
	}
	digest := sha256.Sum256([]byte(chain))
	f.mu.Lock()
	if s := f.secrets[name]; s != nil {
		s.any, s.version, s.problem, s.refused, s.loaded, s.expires = packed, fmt.Sprintf("%x", digest[:8]), "", "", f.now(), expires
	}
	f.mu.Unlock()
	f.tell()
	return nil
}

// lacks notes why a certificate is not issued, and says whether that is new.
func (f *fileSecrets) lacks(name, problem string) (news bool) {
	f.mu.Lock()
	if s := f.secrets[name]; s != nil && s.problem != problem {
		s.problem, news = problem, true
	}
	f.mu.Unlock()
	if news && f.changed != nil {
		f.changed()
	}
	return news
}

// load reads a secret's files. It is called with the lock held and reports
// whether anything is different now.
func (f *fileSecrets) load(s *fileSecret) (changed bool) {
	if s.own {
		return false
	}
	files, err := envoy.ParseFileSecret(s.name)
	s.files = files
	var chain, key []byte
	if err == nil {
		chain, err = readFile(files.Chain, maxSecretFile)
	}
	if err == nil && files.Key != "" {
		key, err = readFile(files.Key, maxSecretFile)
	}
	digest := sha256.Sum256(slices.Concat(chain, []byte{0}, key, []byte{0}, fmt.Append(nil, err)))
	if digest == s.digest {
		return false
	}
	s.digest = digest
	var made *tlsv3.Secret
	if err == nil {
		made, s.expires, err = makeSecret(s.name, files, chain, key)
	}
	if err != nil {
		s.problem = err.Error()
		f.log.Warn("a certificate file is not usable", "secret", s.name, "why", s.problem, "serving_last_good", s.any != nil)
		return true
	}
	packed, err := anypb.New(made)
	if err != nil {
		s.problem = err.Error()
		return true
	}
	if s.version != "" {
		f.log.Info("a certificate file has changed; the new one is served", "secret", s.name, "expires", s.expires)
	}
	s.any, s.version, s.problem, s.refused, s.loaded = packed, fmt.Sprintf("%x", digest[:8]), "", "", f.now()
	return true
}

// makeSecret checks what Envoy would refuse, and says which file is to blame.
func makeSecret(name string, files envoy.FileSecret, chain, key []byte) (*tlsv3.Secret, time.Time, error) {
	certificates, err := parseCertificates(chain)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%s: %w", files.Chain, err)
	}
	if files.Key == "" {
		var last time.Time // a bundle is of use until its last root ends
		for _, c := range certificates {
			if c.NotAfter.After(last) {
				last = c.NotAfter
			}
		}
		return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(chain)}}}, last, nil
	}
	if bytes.Contains(key, []byte("ENCRYPTED")) {
		return nil, time.Time{}, fmt.Errorf("%s: the private key has a passphrase, which Envoy cannot ask for", files.Key)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return nil, time.Time{}, fmt.Errorf("%s does not belong to %s: %s", files.Key, files.Chain, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}}}, certificates[0].NotAfter, nil
}

func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return certificates, nil
}

func inline(content []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: bytes.Clone(content)}}
}

// run watches the files' directories until the context ends. Directories, since
// certificates are renamed into place, or a link to their directory is.
func (f *fileSecrets) run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch certificate files: %w", err)
	}
	defer watcher.Close()
	poll := time.NewTicker(pollFiles)
	defer poll.Stop()
	var settled <-chan time.Time
	for {
		f.watchDirectories(watcher)
		select {
		case <-watcher.Events:
			if settled == nil {
				settled = time.After(settleFiles)
			}
			continue
		case err := <-watcher.Errors:
			f.log.Warn("watching certificate files goes on by polling", "why", err)
		case <-f.watch:
		case <-settled:
			settled = nil
		case <-poll.C:
		case <-ctx.Done():
			return nil
		}
		f.reload()
	}
}

func (f *fileSecrets) reload() {
	f.mu.Lock()
	changed := false
	for _, s := range f.secrets {
		changed = f.load(s) || changed
	}
	f.mu.Unlock()
	if changed {
		f.tell()
	}
}

// watchDirectories watches the directories of all files, and those that links
// lead to. What cannot be watched yet is tried again at the next poll.
func (f *fileSecrets) watchDirectories(watcher *fsnotify.Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wanted := map[string]bool{}
	for _, s := range f.secrets {
		// What was issued has no files, and no paths.
		for _, path := range []string{s.files.Chain, s.files.Key} {
			if path == "" {
				continue
			}
			wanted[filepath.Dir(path)] = true
			if real, err := filepath.EvalSymlinks(path); err == nil {
				wanted[filepath.Dir(real)] = true
			}
		}
	}
	for dir := range f.watched {
		if !wanted[dir] {
			watcher.Remove(dir) //nolint:errcheck // it may be gone
			delete(f.watched, dir)
		}
	}
	for dir := range wanted {
		if !slices.Contains(watcher.WatchList(), dir) {
			f.watched[dir] = watcher.Add(dir) == nil
		}
	}
}

// tell wakes all who serve the secrets.
func (f *fileSecrets) tell() {
	f.mu.Lock()
	for sub := range f.subs {
		select {
		case sub <- struct{}{}:
		default:
		}
	}
	f.mu.Unlock()
	if f.changed != nil {
		f.changed()
	}
}

// subscribe has a channel (of capacity 1) told of changes until done is called.
func (f *fileSecrets) subscribe(wake chan<- struct{}) (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[wake] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, wake)
	}
}

// get is a secret's good content and its version; nil if there is none. known
// is false for a name that no configuration has.
func (f *fileSecrets) get(name string) (content *anypb.Any, version string, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.secrets[name]
	if s == nil {
		return nil, "", false
	}
	return s.any, s.version, true
}

// envoyRefused notes that Envoy did not take a version of a secret.
func (f *fileSecrets) envoyRefused(name, version, message string) {
	f.mu.Lock()
	if s := f.secrets[name]; s != nil && s.version == version {
		s.refused = message
		f.log.Warn("Envoy refuses a certificate", "secret", name, "why", message)
	}
	f.mu.Unlock()
	f.tell()
}

// envoyHolds notes that a stream of Envoy has acknowledged a secret (1), or does
// not ask for it any longer or has ended (-1).
func (f *fileSecrets) envoyHolds(name string, change int) {
	f.mu.Lock()
	if f.holders[name] += change; f.holders[name] == 0 {
		delete(f.holders, name)
	}
	f.mu.Unlock()
	if f.changed != nil {
		f.changed()
	}
}

// secretState is what is known of one secret, for people and for readiness.
type secretState struct {
	Name    string
	Files   envoy.FileSecret
	Loaded  bool   // Envoy can have it
	Held    bool   // Envoy has it: this version or an earlier one
	Problem string // why the files are not served as they are
	Expires time.Time
}

func (f *fileSecrets) states() []secretState {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	states := make([]secretState, 0, len(f.secrets))
	for _, s := range f.secrets {
		state := secretState{Name: s.name, Files: s.files, Loaded: s.any != nil && s.refused == "", Held: f.holders[s.name] > 0, Problem: s.problem, Expires: s.expires}
		if s.own {
			own, _ := mesh.ParseOwnCertificate(s.name)
			state.Files.Chain = own.URI
		}
		switch {
		case s.own && s.any != nil && now.After(s.expires):
			state.Problem = fmt.Sprintf("%s has expired at %s; %s", state.Files.Chain, s.expires.UTC().Format(time.RFC3339), s.problem)
		case s.problem != "" && s.any != nil:
			state.Problem += " (the last good one is served)"
		case s.refused != "":
			state.Problem = "Envoy refuses it: " + s.refused
		case s.any != nil && now.After(s.expires):
			state.Problem = fmt.Sprintf("%s has expired at %s", s.files.Chain, s.expires.UTC().Format(time.RFC3339))
		}
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b secretState) int { return strings.Compare(a.Name, b.Name) })
	return states
}
