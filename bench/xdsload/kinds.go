package main

import (
	"fmt"
	"strings"
)

const typePrefix = "type.googleapis.com/"

// kind is one xDS resource type. The order is the order Envoy asks in.
type kind int

const (
	cds kind = iota
	eds
	lds
	rds
	sds
	manifest // only agents know it: what a push was made from
	kindCount
)

var kindName = [kindCount]string{"cds", "eds", "lds", "rds", "sds", "manifest"}

var kindURL = [kindCount]string{
	typePrefix + "envoy.config.cluster.v3.Cluster",
	typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment",
	typePrefix + "envoy.config.listener.v3.Listener",
	typePrefix + "envoy.config.route.v3.RouteConfiguration",
	typePrefix + "envoy.extensions.transport_sockets.tls.v3.Secret",
	typePrefix + "fairlead.v1.Manifest",
}

func kindOf(url string) (kind, bool) {
	for k, u := range kindURL {
		if u == url {
			return kind(k), true
		}
	}
	return 0, false
}

// kinds is a set of kinds.
type kinds [kindCount]bool

func parseKinds(list string) (set kinds, err error) {
	for _, word := range strings.Split(list, ",") {
		found := false
		for k := range kindName {
			if word == kindName[k] {
				set[k], found = true, true
			}
		}
		if !found {
			return set, fmt.Errorf("unknown resource type %q: it is one of %s", word, strings.Join(kindName[:], ", "))
		}
	}
	return set, nil
}
