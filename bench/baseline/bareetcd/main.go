// Command bareetcd is an embedded etcd and nothing else, set up as Fairlead's
// store sets up its own, fsync included. It shows what a Create could cost at
// least: transactions with as many conditions and writes, of the same size, in
// process.
//
//	POST /run?clients=8&length=2s   answers with a Result of apiload
//	PUT /transact                   one transaction, for clients that come over HTTP
//
// The second shows what HTTP alone leaves of the first: no signature, no JSON,
// no rules, an answer of the size of a record.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/fairlead/fairlead/bench/apiload"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bareetcd: ")
	dir := flag.String("dir", "", "folder of the store")
	record := flag.Int("record", 0, "bytes of a record")
	change := flag.Int("change", 0, "bytes of the change record beside it")
	flag.Parse()
	if err := serve(*dir, strings.Repeat("r", *record), strings.Repeat("c", *change)); err != nil {
		log.Fatal(err)
	}
}

func serve(dir, record, change string) error {
	server, err := startEtcd(dir)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	client := v3client.New(server.Server)
	if _, err := client.Put(context.Background(), "/record/mesh", record); err != nil {
		return fmt.Errorf("write the mesh: %w", err)
	}
	http.HandleFunc("POST /run", func(w http.ResponseWriter, r *http.Request) {
		clients, err := strconv.Atoi(r.FormValue("clients"))
		length, lengthErr := time.ParseDuration(r.FormValue("length"))
		if err != nil || lengthErr != nil {
			http.Error(w, "clients and length are needed", http.StatusBadRequest)
			return
		}
		result, err := apiload.Measure(clients, length, func(int) (apiload.Worker, error) {
			return func() error { return transact(r.Context(), client, record, change) }, nil
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := json.NewEncoder(w).Encode(result); err != nil {
			log.Print(err)
		}
	})
	http.HandleFunc("PUT /transact", func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			err = transact(r.Context(), client, record, change)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(record)))
		if _, err := io.WriteString(w, record); err != nil {
			log.Print(err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("ready admin=http://%s\n", listener.Addr())
	return http.Serve(listener, nil)
}

// transact does what a Create's transaction does: the mesh is still there, the
// record is not, and both it and its change record are written.
func transact(ctx context.Context, client *clientv3.Client, record, change string) error {
	name := strconv.FormatUint(rand.Uint64(), 36)
	response, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision("/record/mesh"), ">", 0), clientv3.Compare(clientv3.CreateRevision("/record/mesh/"+name), "=", 0)).
		Then(clientv3.OpPut("/record/mesh/"+name, record), clientv3.OpPut("/change/mesh/"+name, change)).
		Commit()
	if err == nil && !response.Succeeded {
		return fmt.Errorf("%s was there already", name)
	}
	return err
}

func startEtcd(dir string) (*embed.Etcd, error) {
	c := embed.NewConfig()
	c.Dir = dir
	c.Name = "bare"
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	c.AdvertisePeerUrls = []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil, nil
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	c.TickMs, c.ElectionMs = 20, 100
	c.AutoCompactionMode = embed.CompactorModeRevision
	c.AutoCompactionRetention = "50000"
	c.QuotaBackendBytes = 8 << 30
	c.SnapshotCount, c.SnapshotCatchUpEntries = 10_000, 100
	server, err := embed.StartEtcd(c)
	if err != nil {
		return nil, err
	}
	<-server.Server.ReadyNotify()
	return server, nil
}
