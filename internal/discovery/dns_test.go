package discovery_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/fairlead/fairlead/internal/discovery"
)

// ask returns the addresses and the response code, over a transport.
func ask(t *testing.T, server *discovery.Server, transport, name string, qtype uint16) ([]string, string) {
	t.Helper()
	request := new(dns.Msg)
	request.SetQuestion(dns.Fqdn(name), qtype)
	reply, _, err := (&dns.Client{Net: transport}).Exchange(request, server.Address())
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, record := range reply.Answer {
		switch r := record.(type) {
		case *dns.A:
			addresses = append(addresses, r.A.String())
		case *dns.AAAA:
			addresses = append(addresses, r.AAAA.String())
		}
	}
	slices.Sort(addresses)
	return addresses, dns.RcodeToString[reply.Rcode]
}

func TestAnswers(t *testing.T) {
	server, err := discovery.Start("127.0.0.1:0", map[string]string{
		"blue.demo.local": "127.77.0.11",
		"both.demo.local": "127.77.0.12,127.77.0.13,::1",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, test := range []struct {
		name  string
		qtype uint16
		want  []string
		rcode string
	}{
		{"blue.demo.local", dns.TypeA, []string{"127.77.0.11"}, "NOERROR"},
		{"BLUE.demo.LOCAL", dns.TypeA, []string{"127.77.0.11"}, "NOERROR"},
		{"blue.demo.local", dns.TypeAAAA, nil, "NOERROR"},
		{"both.demo.local", dns.TypeA, []string{"127.77.0.12", "127.77.0.13"}, "NOERROR"},
		{"both.demo.local", dns.TypeAAAA, []string{"::1"}, "NOERROR"},
		{"blue.demo.local", dns.TypeTXT, nil, "NOERROR"},
		{"green.demo.local", dns.TypeA, nil, "NXDOMAIN"},
	} {
		for _, transport := range []string{"udp", "tcp"} {
			got, rcode := ask(t, server, transport, test.name, test.qtype)
			if diff := cmp.Diff(test.want, got); diff != "" || rcode != test.rcode {
				t.Errorf("%s %s over %s: %s, want %s %s", dns.TypeToString[test.qtype], test.name, transport, rcode, test.rcode, diff)
			}
		}
	}
}

func TestChangesAtRunTime(t *testing.T) {
	server, err := discovery.Start("127.0.0.1:0", map[string]string{"a.local": "127.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.Set("a.local.", "127.0.0.3"); err != nil {
		t.Fatal(err)
	}
	if got, _ := ask(t, server, "udp", "a.local", dns.TypeA); !slices.Equal(got, []string{"127.0.0.3"}) {
		t.Errorf("after a change: %v", got)
	}
	if err := server.Set("a.local"); err != nil {
		t.Fatal(err)
	}
	if _, rcode := ask(t, server, "udp", "a.local", dns.TypeA); rcode != "NXDOMAIN" {
		t.Errorf("after a removal: %s", rcode)
	}
	if err := server.Set("a.local", "localhost"); err == nil {
		t.Error("a hostname was taken for an address")
	}
}
