package awsapi

import (
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api/acmpca"
)

// FuzzCBOR: whatever the bytes, they are refused or read; what is read is what
// smithy's decoder reads, and survives a round trip.
func FuzzCBOR(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		in := reflect.New(reflect.TypeFor[acmpca.CreateCertificateAuthorityRequest]()).Elem()
		fill(r, in, 0)
		_, item := written(r, in)
		f.Add(oddly(r, nil, item))
	}
	for _, seed := range []string{"", "a0", "bfff", "ff", "a1", "bbffffffffffffffff", "a16454616773" + "9bffffffffffffffff", "c1fb41da48bdd0200000", "f97e00", "a17f6454616773ff80", "a264546167738064546167738" + "0"} {
		b, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in acmpca.CreateCertificateAuthorityRequest
		faults, read := decodeCBOR(data, &in)
		var other all // has every kind
		decodeCBOR(data, &other)
		if len(faults) > 0 {
			if s := faults.Error(); s == "" || len(s) > 16<<10 {
				t.Fatalf("a message of %d bytes", len(s))
			}
			return
		}
		if !read {
			t.Fatal("neither read nor refused")
		}
		theirs, err := cbor.Decode(data)
		if err != nil {
			t.Fatalf("accepted what smithy refuses: %v\n%x", err, data)
		}
		_, ours := written(nil, reflect.ValueOf(in))
		if diff := cmp.Diff(withoutEmpty(theirs), withoutEmpty(ours)); diff != "" {
			t.Fatalf("read differently (-smithy +ours):\n%s", diff)
		}
		var again acmpca.CreateCertificateAuthorityRequest
		if faults, _ := decodeCBOR(mustCBOR(t, &in), &again); len(faults) > 0 || !cmp.Equal(in, again) {
			t.Fatalf("changed by a round trip: %v\n%s", faults, cmp.Diff(in, again))
		}
		Validate(&in)
	})
}

// withoutEmpty drops members that are null or an empty text: a required text
// cannot tell.
func withoutEmpty(v cbor.Value) cbor.Value {
	switch v := withoutNil(v).(type) {
	case cbor.Map:
		for name, member := range v {
			if v[name] = withoutEmpty(member); member == cbor.String("") {
				delete(v, name)
			}
		}
		return v
	case cbor.List:
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
		return v
	default:
		return v
	}
}
