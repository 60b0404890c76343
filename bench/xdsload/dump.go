package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead/fairlead/bench/adswire"
)

// dump keeps what one proxy was sent, for a baseline to serve again.
type dump struct {
	mu   sync.Mutex
	held [kindCount]map[string][]byte // name -> Any
}

func (d *dump) add(k kind, r *adswire.Response) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held[k] == nil {
		d.held[k] = map[string][]byte{}
	}
	for i, body := range r.Anys {
		d.held[k][r.Names[i]] = bytes.Clone(body)
	}
	for _, name := range r.Removed {
		delete(d.held[k], name)
	}
}

// write makes DIR/INDEX.TYPE.pb of every type: a DeltaDiscoveryResponse with all
// resources. DIR/INDEX.id is the proxy's node id.
func (d *dump) write(dir string, index int, nodeID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	base := filepath.Join(dir, fmt.Sprintf("%05d", index))
	if err := os.WriteFile(base+".id", []byte(nodeID), 0o600); err != nil {
		return err
	}
	for k, held := range d.held {
		all := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: kindURL[k]}
		for name, body := range held {
			wrapped := &anypb.Any{}
			if err := proto.Unmarshal(body, wrapped); err != nil {
				return fmt.Errorf("read %s %s: %w", kindName[k], name, err)
			}
			all.Resources = append(all.Resources, &discoveryv3.Resource{Name: name, Resource: wrapped})
		}
		slices.SortFunc(all.Resources, func(a, b *discoveryv3.Resource) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
		b, err := proto.Marshal(all)
		if err != nil {
			return err
		}
		if err := os.WriteFile(base+"."+kindName[k]+".pb", b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
