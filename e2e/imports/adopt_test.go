package imports_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fairlead/fairlead/internal/meshtest"
	"github.com/fairlead/fairlead/internal/tlspolicy"
)

const (
	oldNodes   = "arn:aws:acm:us-east-1:000000000000:certificate/11111111-2222-3333-4444-555555555555"
	oldGateway = "arn:aws:acm:us-east-1:000000000000:certificate/22222222-2222-3333-4444-555555555555"
	oldRoot    = "arn:aws:acm-pca:us-east-1:999999999999:certificate-authority/aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
)

// said is what a run of fairlead came to.
type said struct {
	out, err string
	code     int
}

// arns imports the mesh that names ARNs, without a terminal.
func arns(t *testing.T, s *meshtest.Server, account string, more ...string) said {
	t.Helper()
	return fairlead(t, s, append([]string{"import", "testdata/arns.yaml", "--parameter", "Account=" + account}, more...)...)
}

func fairlead(t *testing.T, s *meshtest.Server, args ...string) said {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, meshtest.Binary(t), args...)
	cmd.Env = s.AWSEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no terminal to ask at
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return said{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

func (s said) want(t *testing.T, code int, stderr ...string) said {
	t.Helper()
	for _, text := range stderr {
		if !strings.Contains(s.err, text) {
			t.Errorf("it does not say %q", text)
		}
	}
	if s.code != code || t.Failed() {
		t.Fatalf("exit code %d, want %d:\n%s", s.code, code, s.err)
	}
	return s
}

// boto3 runs a program of Python with a client for a service, and returns what
// it prints; an error has the message of the server's.
func boto3(t *testing.T, s *meshtest.Server, service, expression string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), meshtest.Tool(t, "python3"), "-c", "import boto3, sys\nclient = boto3.client('"+service+"')\nprint("+expression+")")
	cmd.Env = s.AWSEnv()
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func certificateStatus(t *testing.T, s *meshtest.Server, arn string) (string, error) {
	t.Helper()
	return boto3(t, s, "acm", "' '.join(sorted((lambda c: [c['Status'], c['Type'], *c['SubjectAlternativeNames']])(client.describe_certificate(CertificateArn='"+arn+"')['Certificate'])))")
}

func authorityStatus(t *testing.T, s *meshtest.Server, arn string) (string, error) {
	t.Helper()
	return boto3(t, s, "acm-pca", "(lambda c: c['Status'] + ' ' + c['Type'])(client.describe_certificate_authority(CertificateAuthorityArn='"+arn+"')['CertificateAuthority'])")
}

// nothingThere wants none of the old ARNs to be on the server.
func nothingThere(t *testing.T, s *meshtest.Server) {
	t.Helper()
	for _, arn := range []string{oldNodes, oldGateway} {
		if status, err := certificateStatus(t, s, arn); err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
			t.Fatalf("%s is there: %s, %v", arn, status, err)
		}
	}
	if status, err := authorityStatus(t, s, oldRoot); err == nil || !strings.Contains(err.Error(), "AccessDeniedException") {
		t.Fatalf("%s is there: %s, %v", oldRoot, status, err)
	}
}

// oldARNs wants all of the old ARNs to be there, and what they are.
func oldARNs(t *testing.T, s *meshtest.Server) {
	t.Helper()
	got := map[string]string{}
	var errs [3]error
	got[oldNodes], errs[0] = certificateStatus(t, s, oldNodes)
	got[oldGateway], errs[1] = certificateStatus(t, s, oldGateway)
	got[oldRoot], errs[2] = authorityStatus(t, s, oldRoot)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		oldNodes: "ISSUED PRIVATE api.apps.local internal.example.com orders.apps.local", oldGateway: "ISSUED PRIVATE www.example.com", oldRoot: "ACTIVE ROOT",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the old ARNs (-want +got):\n%s", diff)
	}
}

// TestAdopt: what the specs of a mesh name is there afterwards, under its ARNs.
func TestAdopt(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	documents := arns(t, s, meshtest.Account).want(t, 0).out

	refused := arns(t, s, meshtest.Account, "--adopt").want(t, 1,
		"there is no terminal to ask", "fairlead ca adopt --arn "+oldRoot+" --issue\n",
		"fairlead acm adopt --arn "+oldNodes+" --issue --authority "+oldRoot+" --domain api.apps.local --name orders.apps.local --name internal.example.com\n")
	if refused.out != "" {
		t.Errorf("it wrote documents all the same:\n%s", refused.out)
	}
	if dry := arns(t, s, meshtest.Account, "--adopt", "--dry-run").want(t, 0, "a NEW root CA under "+oldRoot, "a certificate under "+oldGateway); dry.out != documents {
		t.Errorf("a dry run writes other documents:\n%s", dry.out)
	}
	nothingThere(t, s)

	if made := arns(t, s, meshtest.Account, "--adopt", "--yes").want(t, 0, "adopted "+oldRoot+" ACTIVE", "issued "+oldNodes+" ISSUED", "issued "+oldGateway+" ISSUED"); made.out != documents {
		t.Errorf("other documents are written:\n%s", made.out)
	}
	oldARNs(t, s)
	serial, err := boto3(t, s, "acm", "client.describe_certificate(CertificateArn='"+oldNodes+"')['Certificate']['Serial']")
	if err != nil {
		t.Fatal(err)
	}
	arns(t, s, meshtest.Account, "--adopt").want(t, 0, "To be adopted: nothing")
	if again, err := boto3(t, s, "acm", "client.describe_certificate(CertificateArn='"+oldNodes+"')['Certificate']['Serial']"); err != nil || again != serial {
		t.Errorf("a second import made another certificate: %s, then %s, %v", serial, again, err)
	}
}

// TestAdoptedMesh: in one pipe the mesh is there as it was, encrypted under the old
// ARNs, through real Envoys.
func TestAdoptedMesh(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c",
		"$0 import testdata/arns.yaml --parameter Account="+meshtest.Account+" --adopt --yes | $0 apply -f -", meshtest.Binary(t))
	shell.Env = s.AWSEnv()
	if out, err := shell.CombinedOutput(); err != nil || !strings.Contains(string(out), "6 created") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, arn := range []string{oldNodes, oldGateway} {
		users, err := boto3(t, s, "acm", "len(client.describe_certificate(CertificateArn='"+arn+"')['Certificate']['InUseBy'])")
		if want := map[string]string{oldNodes: "2", oldGateway: "1"}[arn]; err != nil || users != want {
			t.Errorf("%s is in use by %s, want %s, %v", arn, users, want, err)
		}
	}

	n := meshtest.NewNetwork(t)
	app := meshtest.StartApp(t, "api")
	api := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/apps/virtualNode/api", Address: n.Address(t, "api.apps.local"), DNS: n.DNS.Address(), Apps: map[int]int{8080: app.Port}})
	orders := meshtest.StartAgent(t, s, meshtest.AgentOptions{Resource: "mesh/apps/virtualNode/orders", Address: n.Address(t, "orders.apps.local"), DNS: n.DNS.Address(), Apps: map[int]int{8080: app.Port}})
	api.WaitReady(t)
	orders.WaitReady(t)
	meshtest.Eventually(t, 30*time.Second, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, orders.At(15001, "/"), nil)
		if err != nil {
			return err
		}
		request.Host = "api.apps.local:8080"
		if status, body, err := meshtest.Do(request); err != nil || status != http.StatusOK {
			return fmt.Errorf("orders is answered %d %s, %v", status, body, err)
		}
		edges, err := s.Edges(t, "apps")
		if err != nil {
			return err
		}
		for _, e := range edges {
			if e.Client == "virtualNode/orders" && e.Server == "virtualNode/api" && e.Observed && e.Verdict == tlspolicy.VerdictVerified && e.Handshakes > 0 {
				return nil
			}
		}
		return fmt.Errorf("no edge that is seen to be encrypted and verified: %+v", edges)
	})
}

// TestAdoptByCommands: the commands that an import without a terminal prints do
// the same, whatever a shell makes of them.
func TestAdoptByCommands(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	refused := arns(t, s, meshtest.Account, "--adopt").want(t, 1, "there is no terminal to ask")
	_, list, _ := strings.Cut(refused.err, "one by one:\n")
	list, _, _ = strings.Cut(list, "Those for what you have")
	shell := exec.CommandContext(t.Context(), "bash", "-euc", list)
	shell.Env = slices.DeleteFunc(s.AWSEnv(), func(v string) bool { return strings.HasPrefix(v, "PATH=") })
	shell.Env = append(shell.Env, "PATH="+filepath.Dir(meshtest.Binary(t))+":"+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	if err != nil || strings.Count(string(out), "adopted ") != 3 {
		t.Fatalf("%v\n%s\n%s", err, list, out)
	}
	oldARNs(t, s)
	arns(t, s, meshtest.Account, "--adopt").want(t, 0, "To be adopted: nothing")
}

// TestAdoptAsks: at the terminal, and does what it is answered.
func TestAdoptAsks(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	template, err := os.ReadFile("testdata/arns.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(answer string) said {
		master, slave := terminal(t)
		defer master.Close()
		defer slave.Close()
		if _, err := master.WriteString(answer + "\n"); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), meshtest.Binary(t), "import", "-", "--parameter", "Account="+meshtest.Account, "--adopt")
		cmd.Env = s.AWSEnv()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
		cmd.ExtraFiles = []*os.File{slave}
		var out, errs bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(template), &out, &errs
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		shown := make([]byte, 4096)
		n, err := master.Read(shown)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(shown[:n]), "answer no and use fairlead ca adopt") {
			t.Errorf("the terminal shows %q", shown[:n])
		}
		return said{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	}
	for _, answer := range []string{"", "n", "maybe"} {
		if declined := ask(answer).want(t, 1, "nothing was adopted"); declined.out != "" {
			t.Errorf("answered %q it writes\n%s", answer, declined.out)
		}
	}
	nothingThere(t, s)
	ask("y").want(t, 0, "issued "+oldNodes+" ISSUED")
	oldARNs(t, s)
}

// terminal is a new pseudo terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestAdoptOwn: what the user has is adopted first and left alone; what cannot be
// made beside it is said before anything is.
func TestAdoptOwn(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	dir := t.TempDir()
	openssl(t, dir, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-days", "800", "-subj", "/O=Example/CN=Old root")
	openssl(t, dir, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "api.key", "-out", "api.csr", "-subj", "/CN=api.apps.local")
	if err := os.WriteFile(filepath.Join(dir, "names"), []byte("subjectAltName=DNS:api.apps.local,DNS:orders.apps.local,DNS:internal.example.com\nextendedKeyUsage=serverAuth\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl(t, dir, "x509", "-req", "-in", "api.csr", "-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "7", "-days", "90", "-extfile", "names", "-out", "api.pem")
	file := func(name string) string { return filepath.Join(dir, name) }

	trust := []string{"ca", "adopt", "--arn", oldRoot, "--cert", file("root.pem")}
	if got := fairlead(t, s, trust...).want(t, 0).out; got != "adopted "+oldRoot+" ACTIVE\n" {
		t.Errorf("ca adopt says %q", got)
	}
	if got := fairlead(t, s, trust...).want(t, 0).out; got != "unchanged "+oldRoot+" ACTIVE\n" {
		t.Errorf("ca adopt says %q", got)
	}
	arns(t, s, meshtest.Account, "--adopt", "--yes").want(t, 1, oldNodes+" must be issued below "+oldRoot+", of which this server has the certificate and not the key")
	fairlead(t, s, "acm", "adopt", "--arn", oldNodes, "--cert", file("api.pem"), "--key", file("root.key"), "--chain", file("root.pem")).want(t, 1, "is not that of the certificate")
	if got := fairlead(t, s, "acm", "adopt", "--arn", oldNodes, "--cert", file("api.pem"), "--key", file("api.key"), "--chain", file("root.pem"), "-o", "json").want(t, 0).out; !strings.Contains(got, `"adopted": true`) {
		t.Errorf("acm adopt says %s", got)
	}
	// The gateway's clients are outside: any root will do, and none here can issue.
	arns(t, s, meshtest.Account, "--adopt", "--yes").want(t, 0, "a NEW root CA under arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/", "issued "+oldGateway+" ISSUED")
	if got, err := certificateStatus(t, s, oldNodes); err != nil || !strings.HasPrefix(got, "IMPORTED ISSUED") {
		t.Errorf("the user's own certificate is %s, %v", got, err)
	}
	fairlead(t, s, append(trust, "--key", file("root.key"))...).want(t, 0)
	if got := fairlead(t, s, "acm", "adopt", "--arn", strings.Replace(oldNodes, "11111111", "33333333", 1), "--issue", "--domain", "c.apps.local", "--authority", oldRoot).want(t, 0).out; !strings.HasSuffix(got, " ISSUED\n") {
		t.Errorf("below the authority with its key: %s", got)
	}
}

func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAdoptElsewhere: ARNs of another account or region, and flags that need
// --adopt, are refused before anything is made.
func TestAdoptElsewhere(t *testing.T) {
	s := meshtest.StartServer(t, meshtest.ServerOptions{})
	arns(t, s, "123456789012", "--adopt", "--yes").want(t, 1, "is of the account 123456789012, and this server's is 000000000000", "make a server with --account-id 123456789012")
	nothingThere(t, s)
	arns(t, s, meshtest.Account, "--yes").want(t, 2, "are for --adopt")
	arns(t, s, meshtest.Account, "--adopt", "--authority", "arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee").want(t, 2, "no ACTIVE authority")
}
