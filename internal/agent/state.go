package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/fairlead/fairlead/internal/envoy"
	"github.com/fairlead/fairlead/internal/xds"
)

// saved is what an agent keeps on the disk: the configuration without keys.
// Secrets of the server are never in it, and no resource that carries a key.
type saved struct {
	Format    int             `json:"format"`
	Resource  string          `json:"resource"` // whose configuration this is
	Lineage   string          `json:"lineage"`
	Revision  int64           `json:"revision"`
	Origins   []string        `json:"origins"`
	Resources []savedResource `json:"resources"`
}

type savedResource struct {
	Type    string `json:"type"` // its URL
	Name    string `json:"name"`
	Version string `json:"version"`
	Any     []byte `json:"any"`
}

// stateFormat is raised when a field changes its meaning; other formats are
// not read.
const stateFormat = 1

// configured says whether clusters and listeners have both come and Envoy may
// have them: listeners that still wait for a route are not there.
func (m *mirror) configured() bool { return m.whole }

// save is the published configuration as it is kept on the disk.
func (m *mirror) save(resource string) *saved {
	s := &saved{Format: stateFormat, Resource: resource, Lineage: m.held.Lineage, Revision: m.held.Revision, Origins: m.held.Origins}
	for t, list := range m.published.Resources {
		if envoy.Type(t) == envoy.Secret {
			continue
		}
		for _, r := range list {
			if found, err := findReferences(r.Type, r.Any); err != nil || found.key {
				continue
			}
			s.Resources = append(s.Resources, savedResource{r.Type.URL(), r.Name, r.Version, r.Any})
		}
	}
	return s
}

// restore takes up a saved configuration. The secrets of the server that it
// names are absent until the server is back: what needs them stays closed.
func (m *mirror) restore(s *saved) error {
	for _, r := range s.Resources {
		kind, ok := envoy.TypeOf(r.Type)
		if !ok || kind == envoy.Secret {
			return fmt.Errorf("read saved configuration: unexpected type %q", r.Type)
		}
		if err := m.put(&envoy.Resource{Ref: envoy.Ref{Type: kind, Name: r.Name}, Version: r.Version, Any: r.Any}); err != nil {
			return fmt.Errorf("read saved configuration: %w", err)
		}
	}
	for _, ref := range m.missing() {
		m.absent[ref.Type][ref.Name] = true
	}
	m.held = xds.Manifest{Lineage: s.Lineage, Revision: s.Revision, Origins: s.Origins}
	m.sequence, m.applied = 1, 1
	m.answered[envoy.Cluster], m.answered[envoy.Listener] = true, true
	m.published, m.whole = m.build(), true
	return nil
}

// stateDir is the agent's directory on the disk, mode 0700. One agent uses it
// at a time.
type stateDir struct {
	path string
	lock *os.File
}

// openStateDir makes the directory and takes its lock.
func openStateDir(path string) (*stateDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, fmt.Errorf("protect state directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("lock state directory: %s is in use by another agent; give each its own FAIRLEAD_STATE_DIR", path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	return &stateDir{path: path, lock: lock}, nil
}

func (d *stateDir) file() string { return filepath.Join(d.path, "config.json") }

// load reads what an earlier agent of this resource kept; nil: nothing.
func (d *stateDir) load(resource string) (*saved, error) {
	text, err := readFile(d.file(), maxStateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read saved configuration: %w", err)
	}
	s := &saved{}
	if err := jsonv2.Unmarshal(text, s, jsonv2.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("read saved configuration %s: %w", d.file(), err)
	}
	switch {
	case s.Format != stateFormat:
		return nil, fmt.Errorf("read saved configuration %s: format %d is not ours (%d)", d.file(), s.Format, stateFormat)
	case s.Resource != resource:
		return nil, fmt.Errorf("read saved configuration %s: it is of %s", d.file(), s.Resource)
	}
	return s, nil
}

// store writes s in place of the earlier one, whole or not at all.
func (d *stateDir) store(s *saved) (err error) {
	text, err := jsonv2.Marshal(s)
	if err != nil {
		return fmt.Errorf("save configuration: %w", err)
	}
	file, err := os.CreateTemp(d.path, "config-*.tmp") // mode 0600
	if err != nil {
		return fmt.Errorf("save configuration: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("save configuration: %w", err), os.Remove(file.Name()))
		}
	}()
	if _, err = file.Write(text); err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), d.file())
}

// keep writes each new configuration until the context ends, the last one too.
func (d *stateDir) keep(ctx context.Context, configurations <-chan *saved, log *slog.Logger) {
	write := func(s *saved) {
		if err := d.store(s); err != nil {
			log.Error("the configuration is not on the disk: after a restart without the server nothing is served", "why", err)
		}
	}
	for {
		select {
		case s := <-configurations:
			write(s)
		case <-ctx.Done():
			select {
			case s := <-configurations:
				write(s)
			default:
			}
			return
		}
	}
}

func (d *stateDir) close() error { return d.lock.Close() }
