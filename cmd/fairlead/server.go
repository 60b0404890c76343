package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/server"
)

// serverConfig is all of the server's configuration: flags, FAIRLEAD_…
// variables and the file have the same names.
type serverConfig struct {
	DataDir       string
	AccountID     string
	Region        string
	APIAddress    string
	XDSAddress    string
	OpsAddress    string
	EtcdEndpoints []string
	kekFlags
	TLSCert            string
	TLSKey             string
	TLSClientCA        string
	TrustDomain        string
	OwnCertificateLife time.Duration
	PKIURL             string
	ACM                string
	ReadRate           uint
	WriteRate          uint
	Quotas             []string
	Insecure           bool
	LogLevel           string
	LogFormat          string
	UnsafeNoFsync      bool

	quotas server.Quotas // Quotas, as check has read them
}

func newServerCommand() *cobra.Command {
	c := serverConfig{}
	var file string
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane",
		Long: `Runs the control plane: the App Mesh API and Fairlead's own API on --api-address,
configuration for proxies on --xds-address, metrics and health on --ops-address.

The first start makes the data directory and the root key. Use it so:

  AWS_SHARED_CREDENTIALS_FILE=fairlead-data/credentials \
  AWS_ENDPOINT_URL=http://127.0.0.1:9480 AWS_DEFAULT_REGION=us-east-1 \
  aws appmesh list-meshes

When it serves it prints one line: ready api=… xds=… ops=…
Every flag can be set by a variable (--data-dir by FAIRLEAD_DATA_DIR) and by a key
of the --config file (data-dir: …). The command line wins over the variable, the
variable over the file.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := applySettings(cmd.Flags(), os.Getenv); err != nil {
				return err
			}
			if err := c.check(); err != nil {
				return err
			}
			log, err := newLogger(&c, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return serve(cmd.Context(), &c, log, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, configFlag, "", "YAML file with settings; its keys are these flags")
	f.StringVar(&c.DataDir, "data-dir", "./fairlead-data", "folder of the embedded store, the root key and the server's own certificate authority")
	f.StringVar(&c.AccountID, "account-id", "000000000000", "account that owns the meshes: 12 digits")
	f.StringVar(&c.Region, "region", "us-east-1", "region in ARNs, and in the signatures of requests")
	f.StringVar(&c.APIAddress, "api-address", "127.0.0.1:9480", "where the API is served; plain HTTP on loopback, elsewhere TLS")
	f.StringVar(&c.XDSAddress, "xds-address", "127.0.0.1:9481", "where proxies are configured, always over TLS")
	f.StringVar(&c.OpsAddress, "ops-address", "127.0.0.1:9482", "where /metrics, /healthz, /readyz and /version are served, without authentication")
	f.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", nil, "URLs of an external etcd (default an embedded one)")
	c.kekFlags.add(f)
	f.StringVar(&c.TLSCert, "tls-cert", "", "certificate chain, PEM (default one of the server's own, by DATA-DIR/server-ca.pem)")
	f.StringVar(&c.TLSKey, "tls-key", "", "private key of --tls-cert, PEM")
	f.StringVar(&c.TLSClientCA, "tls-client-ca", "", "authorities, PEM, of the certificates that clients of the xDS address must present besides their signature")
	f.StringVar(&c.TrustDomain, "trust-domain", "", "trust domain of the meshes' own certificates (default MESH.fairlead in lower case)")
	f.DurationVar(&c.OwnCertificateLife, "own-certificate-life", 24*time.Hour, "how long the meshes' own certificates are valid; agents renew them at half of it")
	f.StringVar(&c.PKIURL, "pki-url", "", "where relying parties fetch CRLs and OCSP answers, as certificates say (default http://OPS-ADDRESS)")
	f.StringVar(&c.ACM, "acm", acmEmbedded, "whose certificates and authorities specs name by ARN: embedded, this server's own, or aws, those of ACM and AWS Private CA; the same on all servers of a store")
	f.UintVar(&c.ReadRate, "api-read-rate", 20000, "requests per second that Describe, List and Get operations of an account may make; 0: any number")
	f.UintVar(&c.WriteRate, "api-write-rate", 10000, "the same of operations that change something")
	f.StringSliceVar(&c.Quotas, "quota", nil, "NAME=VALUE,…: quotas other than the presets, which reference/appmesh-rules.md lists; the same on all servers of a store")
	f.BoolVar(&c.Insecure, "insecure", false, "allow plain HTTP on an --api-address that is not loopback")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.LogFormat, "log-format", "text", "text or json")
	f.BoolVar(&c.UnsafeNoFsync, "unsafe-no-fsync", false, "lose acknowledged writes in a power cut; for control runs of tests")
	if err := f.MarkHidden("unsafe-no-fsync"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// The rates below which App Mesh's own controller, which holds itself to them,
// would be throttled.
const (
	leastReadRate  = 40
	leastWriteRate = 8
)

var (
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
	pkiURLPattern  = regexp.MustCompile(`^http://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~-]+)*$`)
	regionPattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
)

// check refuses what cannot work, before anything is started, and reads what
// has a form of its own.
func (c *serverConfig) check() error {
	switch {
	case !accountPattern.MatchString(c.AccountID):
		return usagef("--account-id: %q does not have 12 digits", c.AccountID)
	case !regionPattern.MatchString(c.Region):
		return usagef("--region: %q is not the name of a region", c.Region)
	case c.DataDir == "":
		return usagef("--data-dir: must not be empty")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return usagef("--tls-cert and --tls-key go together: give both, or none")
	case c.ReadRate > 0 && c.ReadRate < leastReadRate:
		return usagef("--api-read-rate: %d is less than %d, which clients of App Mesh count on; 0 is any number", c.ReadRate, leastReadRate)
	case c.WriteRate > 0 && c.WriteRate < leastWriteRate:
		return usagef("--api-write-rate: %d is less than %d, which clients of App Mesh count on; 0 is any number", c.WriteRate, leastWriteRate)
	case c.OwnCertificateLife < 10*time.Second || c.OwnCertificateLife > 90*24*time.Hour:
		return usagef("--own-certificate-life: %s is not between 10s and 2160h", c.OwnCertificateLife)
	case c.PKIURL != "" && !pkiURLPattern.MatchString(c.PKIURL):
		return usagef("--pki-url: %q is not http://HOST or http://HOST:PORT, with a path or without, with no slash at its end", c.PKIURL)
	case c.ACM != acmEmbedded && c.ACM != acmAWS:
		return usagef("--acm: %q is not %s or %s", c.ACM, acmEmbedded, acmAWS)
	case len(c.EtcdEndpoints) > 0 && c.UnsafeNoFsync:
		return usagef("--unsafe-no-fsync: only the embedded store can do without")
	}
	if err := c.kekFlags.check(c.EtcdEndpoints); err != nil {
		return err
	}
	var err error
	if c.quotas, err = server.ParseQuotas(c.Quotas); err != nil {
		return usagef("--quota: %w", err)
	}
	for _, a := range []struct{ flag, address string }{{"api", c.APIAddress}, {"xds", c.XDSAddress}, {"ops", c.OpsAddress}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			return usagef("--%s-address: %q is not host:port", a.flag, a.address)
		}
	}
	return nil
}

// newLogger writes to w. What is asked for by name is checked here.
func newLogger(c *serverConfig, w interface{ Write([]byte) (int, error) }) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, usagef("--log-level: %q is not debug, info, warn or error", c.LogLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format: %q is not text or json", c.LogFormat)
}

// isLoopback says whether only this host can reach a listener.
func isLoopback(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// listen opens an address and says which flag it came from if it cannot.
func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w", flag, address, strippedOp(err))
	}
	return l, nil
}

// strippedOp drops "listen tcp ADDRESS:", which would say the address twice.
func strippedOp(err error) error {
	if op, ok := err.(*net.OpError); ok { //nolint:errorlint // the outermost only
		return op.Err
	}
	return err
}

func url(tls bool, address net.Addr) string {
	return strings.TrimSuffix("https", map[bool]string{false: "s"}[tls]) + "://" + address.String()
}
