package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// The command line wins over the variable, the variable over the file, the
// file over the default.
func TestSettings(t *testing.T) {
	for _, c := range []struct {
		name  string
		args  []string
		env   map[string]string
		file  string
		want  map[string]string // flag → value
		error string
	}{
		{name: "defaults", want: map[string]string{"data-dir": "./d", "etcd-endpoints": "[]", "insecure": "false", "limit": "7"}},
		{name: "file", file: "data-dir: /file\netcd-endpoints: [http://a, http://b]\ninsecure: true\nlimit: 3\n",
			want: map[string]string{"data-dir": "/file", "etcd-endpoints": "[http://a,http://b]", "insecure": "true", "limit": "3"}},
		{name: "variable over file", file: "data-dir: /file\n", env: map[string]string{"FAIRLEAD_DATA_DIR": "/env"}, want: map[string]string{"data-dir": "/env"}},
		{name: "command line over both", file: "data-dir: /file\n", env: map[string]string{"FAIRLEAD_DATA_DIR": "/env"}, args: []string{"--data-dir", "/arg"}, want: map[string]string{"data-dir": "/arg"}},
		{name: "command line that says the default", env: map[string]string{"FAIRLEAD_DATA_DIR": "/env"}, args: []string{"--data-dir", "./d"}, want: map[string]string{"data-dir": "./d"}},
		{name: "list in a variable", env: map[string]string{"FAIRLEAD_ETCD_ENDPOINTS": "http://a,http://b"}, want: map[string]string{"etcd-endpoints": "[http://a,http://b]"}},
		{name: "empty file", file: "\n", want: map[string]string{"data-dir": "./d"}},

		{name: "unknown keys", file: "datadir: /x\nfoo: 1\n", error: "unknown keys: datadir, foo"},
		{name: "a key twice", file: "data-dir: /x\ndata-dir: /y\n", error: "already"},
		{name: "no value of the flag's kind", file: "insecure: maybe\n", error: `insecure: "maybe"`},
		{name: "a map for a value", file: "data-dir: {a: b}\n", error: "data-dir: map[a:b] is not a value"},
		{name: "bad variable", env: map[string]string{"FAIRLEAD_INSECURE": "maybe"}, error: `FAIRLEAD_INSECURE: "maybe"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			flags.String(configFlag, "", "")
			flags.String("data-dir", "./d", "")
			flags.StringSlice("etcd-endpoints", nil, "")
			flags.Bool("insecure", false, "")
			flags.Int("limit", 7, "")
			args := c.args
			if c.file != "" {
				file := filepath.Join(t.TempDir(), "c.yaml")
				if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--config", file)
			}
			if err := flags.Parse(args); err != nil {
				t.Fatal(err)
			}
			err := applySettings(flags, func(name string) string { return c.env[name] })
			if c.error != "" {
				if err == nil || !strings.Contains(err.Error(), c.error) {
					t.Errorf("error %v, want %q", err, c.error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for name := range c.want {
				got[name] = flags.Lookup(name).Value.String()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServerConfigThatCannotWork(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--account-id 12", `--account-id: "12" does not have 12 digits`},
		{"--region Mars!", `--region: "Mars!" is not the name of a region`},
		{"--tls-cert a.pem", `--tls-cert and --tls-key go together`},
		{"--etcd-endpoints http://127.0.0.1:2379", `--kek-file: must be given with --etcd-endpoints`},
		{"--api-address 9480", `--api-address: "9480" is not host:port`},
		{"--api-read-rate 39", `--api-read-rate: 39 is less than 40, which clients of App Mesh count on; 0 is any number`},
		{"--api-write-rate 7", `--api-write-rate: 7 is less than 8`},
		{"--api-write-rate -1", `invalid argument "-1"`},
		{"--log-level loud", `--log-level: "loud"`},
		{"--log-format xml", `--log-format: "xml"`},
		{"--no-such-flag", `unknown flag: --no-such-flag`},
		{"argument", `takes no arguments`},
		{"--config /no/such/file", `read configuration`},
	} {
		root := rootCommand()
		root.SetArgs(append([]string{"server", "--data-dir", t.TempDir()}, strings.Fields(c.args)...))
		err := root.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.args, err, c.want)
		}
	}
}
