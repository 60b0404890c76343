package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/fairlead/fairlead/bench/loadrun"
)

type options struct {
	addr, nodeID, metadata         string
	n                              int
	kinds                          kinds
	delta, retry, reconnect, once  bool
	ca, identities, region         string
	parallel                       int
	rounds, warmup                 int
	changes                        []loadrun.Change
	roundTimeout, connectTimeout   time.Duration
	settle, pause                  time.Duration
	serverPID                      int
	label, out, dump, changesFile  string
	ids                            []loadrun.Identity
	triggerKeyID, triggerSecretKey string
}

func parseFlags() (*options, error) {
	o := &options{}
	var types, mode string
	f := flag.CommandLine
	f.StringVar(&o.addr, "addr", "127.0.0.1:18000", "ADS server, host:port")
	f.IntVar(&o.n, "n", 100, "number of simulated proxies")
	f.StringVar(&mode, "mode", "delta", "protocol: sotw or delta")
	f.StringVar(&types, "types", "cds,eds,lds,rds,sds", "types to subscribe to, comma separated; names for eds, rds and sds are found in the cds and lds resources")
	f.StringVar(&o.nodeID, "node-id", "node-{{.I}}", "node id template: .I counts from 0, .Mod is .I modulo 100; ignored with -identities")
	f.StringVar(&o.metadata, "node-metadata", "{}", "node metadata, JSON")
	f.StringVar(&o.ca, "ca", "", "PEM file with the CA of the server; empty: no TLS")
	f.StringVar(&o.identities, "identities", "", "JSON file: [{resource, accessKeyId, secretAccessKey}], one a proxy and used in turn; its streams are signed")
	f.StringVar(&o.region, "region", "us-east-1", "region to sign for")
	f.IntVar(&o.parallel, "parallel-connects", 256, "proxies that may be connecting and not yet synced at once (0: all)")
	f.BoolVar(&o.retry, "retry", true, "open broken or refused streams again, with Envoy's back-off (500 ms to 30 s, random)")
	f.BoolVar(&o.reconnect, "reconnect", false, "at the end, cut every connection and connect all at once")
	f.DurationVar(&o.connectTimeout, "connect-timeout", 5*time.Minute, "give up if the proxies are not all synced by then")
	f.DurationVar(&o.settle, "settle", 3*time.Second, "quiet time before the first round and before the server's memory is read")
	f.IntVar(&o.rounds, "rounds", 5, "measured rounds of each change")
	f.IntVar(&o.warmup, "warmup", 1, "rounds made first and not reported")
	f.BoolVar(&o.once, "once", false, "do not make a round again when something else was using the machine")
	f.DurationVar(&o.pause, "pause", time.Second, "wait between rounds; late messages count into the round before")
	f.DurationVar(&o.roundTimeout, "round-timeout", 60*time.Second, "give up on a round after this")
	f.StringVar(&o.changesFile, "changes", "", "JSON file with the changes to make; see README.md")
	f.IntVar(&o.serverPID, "server-pid", 0, "server process on this machine to read CPU and memory of")
	f.StringVar(&o.label, "label", "", "free text copied into the output")
	f.StringVar(&o.out, "out", "-", "file for the JSON result (-: standard output)")
	f.StringVar(&o.dump, "dump", "", "folder to write what each proxy was sent to")
	flag.Parse()
	return o, o.complete(types, mode)
}

// complete checks what the flags say and reads the files they name.
func (o *options) complete(types, mode string) (err error) {
	if o.kinds, err = parseKinds(types); err != nil {
		return err
	}
	if mode != "sotw" && mode != "delta" {
		return fmt.Errorf("unknown -mode %q", mode)
	}
	o.delta = mode == "delta"
	if o.dump != "" && !o.delta {
		return fmt.Errorf("-dump needs -mode delta")
	}
	// Not a flag: every user of the machine can read those.
	o.triggerKeyID, o.triggerSecretKey, _ = strings.Cut(os.Getenv("XDSLOAD_CREDENTIALS"), ":")
	if o.identities != "" {
		if err := readJSON(o.identities, &o.ids); err != nil {
			return err
		}
		if o.ca == "" || len(o.ids) == 0 {
			return fmt.Errorf("-identities needs -ca and at least one identity")
		}
	}
	if o.changesFile == "" {
		return nil
	}
	if err := readJSON(o.changesFile, &o.changes); err != nil {
		return err
	}
	for i := range o.changes {
		if o.changes[i].Expect == 0 {
			o.changes[i].Expect = o.n
		}
	}
	return nil
}

func readJSON(path string, into any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// expand fills a template in.
func expand(text string, data any) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", err
	}
	return b.String(), nil
}
