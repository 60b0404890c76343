package outage

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/meshtest"
)

// Two servers on one etcd are replaced one after the other, each in every way,
// and etcd itself goes away: proxies go to the server that is there.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	one, two, root := startPair(t, etcd.endpoint)
	s := newSceneAt(t, one, "FAIRLEAD_CA_FILE="+root)
	// leave has the proxies go to the other server, and brings the first back.
	leave := func(t *testing.T, from, to *meshtest.Server, end func()) {
		t.Helper()
		s.link.Lead(to.XDS)
		end()
		s.server = to
		began := time.Now()
		s.settled(t)
		t.Logf("the proxies were at the other server after %s", time.Since(began).Round(time.Millisecond))
		s.nextChange(t)
		from.Restart(s.during(t))
	}
	for _, c := range []struct {
		name string
		roll func(*testing.T)
	}{
		{"one server after the other is told to end", func(t *testing.T) {
			leave(t, one, two, func() { one.Terminate(t) })
			leave(t, two, one, func() { two.Terminate(t) })
		}},
		{"the server that the proxies are at is killed", func(t *testing.T) {
			leave(t, one, two, one.Kill)
		}},
		{"what the servers have in common is away: etcd", func(t *testing.T) {
			over := time.After(outage)
			etcd.stop()
			<-over
			s.bothReady(t)
			etcd.start(t)
			began := time.Now()
			s.server.Apply(t, s.webNode())
			// Servers look every second, however long etcd was away.
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the first write after etcd's return took %s", took)
			} else {
				t.Logf("the first write after etcd's return took %s", took.Round(time.Millisecond))
			}
		}},
		{"etcd is away, and the servers restart meanwhile", func(t *testing.T) {
			over := time.After(outage)
			etcd.stop()
			one.Kill()
			two.Kill()
			<-over
			s.bothReady(t)
			etcd.start(t)
			one.Restart(s.during(t))
			two.Restart(s.during(t))
		}},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			load := startLoad(s.streams()...)
			defer load.stop(t)
			c.roll(t)
			s.settled(t)
			s.nextChange(t)
		})
		if !ok {
			return // the next case begins where this one was to end
		}
	}
}

// startPair starts two servers on one etcd, and returns the file with the
// authority that vouches for both.
func startPair(t *testing.T, etcd string) (one, two *meshtest.Server, root string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority := meshtest.NewAuthority(t, "servers")
	leaf, err := authority.Authority.Issue(ca.Names{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	options := meshtest.ServerOptions{Args: []string{
		"--etcd-endpoints", etcd, "--kek-file", write("kek", []byte(strings.Repeat("0f", 32))),
		"--tls-cert", write("server.pem", leaf.Chain), "--tls-key", write("server.key", leaf.Key)}}
	one, two = meshtest.StartServer(t, options), meshtest.StartServer(t, options)
	credentials, err := os.ReadFile(one.Credentials())
	if err == nil {
		err = os.WriteFile(two.Credentials(), credentials, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return one, two, authority.Root
}

// etcdServer is an etcd that somebody else runs, in this process.
type etcdServer struct {
	dir, endpoint string
	running       *embed.Etcd
}

func startEtcd(t *testing.T) *etcdServer {
	t.Helper()
	// The path of a socket has at most 108 bytes, which t.TempDir may exceed.
	dir, err := os.MkdirTemp("", "etcd")
	if err != nil {
		t.Fatal(err)
	}
	e := &etcdServer{dir: dir, endpoint: "unix://" + filepath.Join(dir, "s")}
	t.Cleanup(func() {
		if e.running != nil {
			e.stop()
		}
		os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	})
	e.start(t)
	return e
}

func (e *etcdServer) start(t *testing.T) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = filepath.Join(e.dir, "data")
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls, c.ListenPeerUrls, c.InitialCluster = []url.URL{peer}, nil, c.Name+"="+peer.String()
	client := url.URL{Scheme: "unix", Path: filepath.Join(e.dir, "s")}
	c.AdvertiseClientUrls, c.ListenClientUrls = []url.URL{client}, []url.URL{client}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.TickMs, c.ElectionMs = 20, 100
	running, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	e.running = running
	<-running.Server.ReadyNotify()
}

func (e *etcdServer) stop() {
	e.running.Server.HardStop() // Close alone waits for watches to end
	e.running.Close()
	e.running = nil
}
