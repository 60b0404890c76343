package awsapi

import (
	"encoding/hex"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
)

// all has a member of every kind that the wire has.
type all struct {
	Text   *string        `json:"Text,omitzero"`
	Number *int64         `json:"Number,omitzero"`
	Yes    *bool          `json:"Yes,omitzero"`
	Blob   []byte         `json:"Blob,omitzero" min:"1" max:"4"`
	Time   api.Timestamp  `json:"Time,omitzero"`
	List   []string       `json:"List,omitzero"`
	Part   *all           `json:"Part,omitzero"`
	Map    map[string]int `json:"Map,omitzero"`
	Word   api.Secret     `json:"Word,omitzero" max:"8" pattern:"^\\w+$"`
	Key    api.SecretBlob `json:"Key,omitzero" min:"2"`
}

// hexOf writes CBOR: hexadecimal digits, and texts in quotes with their heads.
func hexOf(t *testing.T, notation string) []byte {
	t.Helper()
	var out []byte
	for i, piece := range strings.Split(notation, `"`) {
		if i%2 == 1 {
			out = appendCBORText(out, piece)
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(piece, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b...)
	}
	return out
}

func mustCBOR(t *testing.T, out any) []byte {
	t.Helper()
	b, err := encodeCBOR(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeCBOR(t *testing.T) {
	text, half := "héllo", api.Timestamp{Time: time.UnixMilli(1500).UTC()}
	number := func(n int64) all { return all{Number: &n} }
	yes := true
	for _, test := range []struct {
		name, cbor string
		want       all
	}{
		{"empty", `a0`, all{}},
		{"empty, indefinite", `bf ff`, all{}},
		{"text", `a1 "Text" "héllo"`, all{Text: &text}},
		{"text, long head", `a1 "Text" 7b0000000000000006 68c3a96c6c6f`, all{Text: &text}},
		{"text, chunks", `a1 "Text" 7f 60 "hé" "llo" ff`, all{Text: &text}},
		{"name, chunks", `a1 7f "Te" "xt" ff "héllo"`, all{Text: &text}},
		{"indefinite map", `bf "Text" "héllo" ff`, all{Text: &text}},
		{"null", `a3 "Text" f6 "Blob" f7 "Time" f6`, all{}},
		{"number", `a1 "Number" 17`, number(23)},
		{"number, 1 byte", `a1 "Number" 1801`, number(1)},
		{"number, 2 bytes", `a1 "Number" 190001`, number(1)},
		{"number, 4 bytes", `a1 "Number" 1a00000001`, number(1)},
		{"number, 8 bytes", `a1 "Number" 1b0000000000000001`, number(1)},
		{"largest", `a1 "Number" 1b7fffffffffffffff`, number(math.MaxInt64)},
		{"smallest", `a1 "Number" 3b7fffffffffffffff`, number(math.MinInt64)},
		{"minus one", `a1 "Number" 20`, number(-1)},
		{"true", `a1 "Yes" f5`, all{Yes: &yes}},
		{"bytes", `a1 "Blob" 43010203`, all{Blob: []byte{1, 2, 3}}},
		{"bytes, chunks", `a1 "Blob" 5f 41 01 40 42 0203 ff`, all{Blob: []byte{1, 2, 3}}},
		{"no bytes", `a1 "Blob" 40`, all{Blob: []byte{}}},
		{"time, integer", `a1 "Time" c1 1a6922f740`, all{Time: api.Timestamp{Time: time.Unix(1763899200, 0).UTC()}}},
		{"time, negative", `a1 "Time" c1 20`, all{Time: api.Timestamp{Time: time.Unix(-1, 0).UTC()}}},
		{"time, half", `a1 "Time" c1 f93e00`, all{Time: half}},
		{"time, single", `a1 "Time" c1 fa3fc00000`, all{Time: half}},
		{"time, double", `a1 "Time" c1 fb3ff8000000000000`, all{Time: half}},
		{"time, long tag", `a1 "Time" d801 fb3ff8000000000000`, all{Time: half}},
		{"list", `a1 "List" 82 "a" "b"`, all{List: []string{"a", "b"}}},
		{"list, indefinite", `a1 "List" 9f "a" "b" ff`, all{List: []string{"a", "b"}}},
		{"empty list", `a1 "List" 80`, all{List: []string{}}},
		{"part", `bf "Part" bf "Part" a0 ff "Map" a1 "k" 07 ff`, all{Part: &all{Part: &all{}}, Map: map[string]int{"k": 7}}},
		{"secrets", `a2 "Word" "sesame" "Key" 420102`, all{Word: api.NewSecret("sesame"), Key: api.NewSecretBlob([]byte{1, 2})}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got all
			faults, read := decodeCBOR(hexOf(t, test.cbor), &got)
			if len(faults) > 0 || !read {
				t.Fatal(faults)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			var again all
			written := mustCBOR(t, &got)
			if faults, _ := decodeCBOR(written, &again); len(faults) > 0 || !cmp.Equal(got, again) {
				t.Errorf("written as %x and read as %v %v", written, again, faults)
			}
		})
	}
}

func TestBadCBOR(t *testing.T) {
	for _, test := range []struct{ name, cbor, want string }{
		{"nothing", ``, "is empty"},
		{"JSON", `7b7d`, "is not valid CBOR: it ends too early, at byte 0"},
		{"cut head", `b9 00`, "is not valid CBOR: it ends too early"},
		{"cut map", `a1 "Text"`, "is not valid CBOR: it ends too early, at byte 6"},
		{"cut text", `a1 "Text" 65 6161`, "is not valid CBOR: it ends too early"},
		{"no break", `bf "Text" "a"`, "is not valid CBOR: it ends too early"},
		{"break after a name", `bf "Text" ff`, "is not valid CBOR: there is no item 0xff"},
		{"break in a definite map", `a1 ff`, "is not valid CBOR: there is no item 0xff"},
		{"break alone", `ff`, "is not valid CBOR: there is no item 0xff"},
		{"something behind", `a0 00`, "has something behind the end of its CBOR document"},
		{"long map", `bbffffffffffffffff "Text" "a"`, "is not valid CBOR: it ends too early"},
		{"long list", `a1 "List" 9bffffffffffffffff`, "is not valid CBOR: it ends too early"},
		{"long text", `a1 "Text" 7bffffffffffffffff 61`, "is not valid CBOR: it ends too early"},
		{"long bytes", `a1 "Blob" 5b7fffffffffffffff 61`, "is not valid CBOR: it ends too early"},
		{"reserved", `a1 "Text" 1c`, "is not valid CBOR: there is no item 0x1c"},
		{"indefinite number", `a1 "Number" 1f`, "is not valid CBOR: there is no item 0x1f"},
		{"chunks within chunks", `a1 "Text" 7f 7f "a" ff ff`, "is not valid CBOR: a chunk of a string is something else"},
		{"chunk of bytes in a text", `a1 "Text" 7f 4161 ff`, "is not valid CBOR: a chunk of a string is something else"},
		{"number as name", `a1 01 "a"`, "is not valid CBOR: the name of a member is not a string"},
		{"bytes as name", `a1 4454657874 "a"`, "is not valid CBOR: the name of a member is not a string"},
		{"bad UTF-8", `a1 "Text" 61ff`, "is not valid CBOR: a string is not UTF-8"},
		{"UTF-8 across chunks", `a1 "Text" 7f 61c3 61a9 ff`, "is not valid CBOR: a string is not UTF-8"},
		{"NUL", `a1 "Text" 6100`, "is not valid CBOR: a string must not contain a NUL character"},
		{"another tag", `a1 "Number" c24101`, "is not valid CBOR: the tag 2 is not understood"},
		{"time of text", `a1 "Time" c1 "1"`, "is not valid CBOR: a time is not a number of seconds"},
		{"time of time", `a1 "Time" c1 c1 01`, "is not valid CBOR: a time is not a number of seconds"},
		{"time of null", `a1 "Time" c1 f6`, "is not valid CBOR: a time is not a number of seconds"},
		{"NaN", `a1 "Time" c1 f97e00`, "is not valid CBOR: a number is not finite"},
		{"infinity", `a1 "Number" fb7ff0000000000000`, "is not valid CBOR: a number is not finite"},
		{"simple value", `a1 "Text" e0`, "is not valid CBOR: the simple value 0 is not understood"},
		{"long simple value", `a1 "Text" f8ff`, "is not valid CBOR: the simple value 255 is not understood"},
		{"too deep", strings.Repeat(`a1 "Part"`, 64) + `a0`, "is nested more than 64 levels deep"},
		{"too wide", `bf` + strings.Repeat(`"x" f6`, 1001) + `ff`, "has an object of more than 1000 members"},
		{"lists too deep", `a1 "List"` + strings.Repeat(`81`, 1000) + `00`, "is nested more than 64 levels deep"},

		{"a list", `80`, "the request body must be a CBOR map, not a list"},
		{"null at the top", `f6`, "the request body must be a CBOR map, not null"},
		{"given twice", `a2 "Text" "a" "Text" "b"`, "Text is given twice"},
		{"given twice, null", `a2 "Text" f6 "Text" "b"`, "Text is given twice"},
		{"given twice, deep", `a1 "Part" bf "Text" "a" 7f "Te" "xt" ff "b" ff`, "Part.Text is given twice"},
		{"key twice", `a1 "Map" a2 "k" 01 "k" 02`, "Map.k is given twice"},
		{"unknown", `a1 "Txet" 82 01 a1 "x" 02`, "Txet is not a known field; did you mean Text?"},
		{"other case", `a1 "text" "a"`, "text is not a known field; did you mean Text?"},
		{"bytes for text", `a1 "Text" 4161`, "Text must be a string, not bytes"},
		{"text for bytes", `a1 "Blob" "YQ=="`, "Blob must be bytes, not a string"},
		{"text for a number", `a1 "Number" "1"`, `Number must be an integer, not a string "1"`},
		{"float for a number", `a1 "Number" f93c00`, "Number must be an integer, not 1.0"},
		{"too large", `a1 "Number" 1b8000000000000000`, "Number does not fit in 64 bits: 9223372036854775808"},
		{"too small", `a1 "Number" 3bffffffffffffffff`, "Number does not fit in 64 bits: -18446744073709551616"},
		{"number for a time", `a1 "Time" 01`, "Time must be a time, not a number"},
		{"time for a number", `a1 "Number" c1 01`, "Number must be an integer, not a time"},
		{"far time", `a1 "Time" c1 fb7e37e43c8800759c`, "Time cannot be read: timestamp"},
		{"number for true", `a1 "Yes" 01`, "Yes must be true or false, not a number 1"},
		{"null in a list", `a1 "List" 81 f6`, "List[0] must not be null"},
		{"map for a list", `a1 "List" a0`, "List must be a list, not an object"},
		{"list for a map", `a1 "Part" 80`, "Part must be an object, not a list"},
		{"too many bytes", `a1 "Blob" 450102030405`, "Blob must be at most 4 bytes long, not 5"},
		{"no bytes", `a1 "Blob" 40`, "Blob must be at least 1 bytes long, not 0"},
		{"secret of another kind", `a1 "Word" 46736573616d65`, "Word must be a string, not bytes"},
		{"secret of a bad pattern", `a1 "Word" "se same"`, `Word must match the pattern ^\w+$`},
		{"secret that is too long", `a1 "Word" "sesame999"`, "Word must be at most 8 characters long, not 9"},
		{"short key", `a1 "Key" 4173`, "Key must be at least 2 bytes long, not 1"},
		{"key as text", `a1 "Key" "sesame"`, "Key must be bytes, not a string"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var in all
			faults, read := decodeCBOR(hexOf(t, test.cbor), &in)
			if read {
				faults = append(faults, faults.others(Validate(&in))...)
			}
			got := strings.TrimPrefix(faults.Error(), "the request body ")
			want := strings.TrimPrefix(test.want, "the request body ")
			if !strings.HasPrefix(got, want) || len(faults) != 1 {
				t.Errorf("got %v, want %s", faults, test.want)
			}
			if strings.Contains(faults.Error()+faults[0].Value, "sesame") || strings.Contains(faults.Error(), "se same") {
				t.Errorf("a fault shows a secret: %v", faults)
			}
		})
	}
}

// TestFaultsHideSecrets: in JSON too.
func TestFaultsHideSecrets(t *testing.T) {
	for _, body := range []string{`{"Word":["sesame"]}`, `{"Word":"sesame sesame sesame"}`, `{"Key":"sesame!"}`, `{"Key":{"a":"sesame"}}`, `{"Key":"sesa\nme=="}`, `{"Blob":"sesame"}`, `{"Blob":7}`} {
		err := DecodeValid([]byte(body), new(all))
		if err == nil || strings.Contains(err.Error(), "sesa") || strings.Contains(err.(Faults)[0].Value, "sesa") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestCBORBombsCostLittle: what a document claims costs nothing, and what it
// holds is bounded.
func TestCBORBombsCostLittle(t *testing.T) {
	list := func(item string) []byte {
		head := appendCBORHead(hexOf(t, `a1 "Tags"`), cborList, MaxBody/2)
		return append(head, strings.Repeat(item, MaxBody/2)...)
	}
	for name, body := range map[string][]byte{
		"empty objects": list("\xa0"), "nulls": list("\xf6"), "numbers": list("\x00"), "empty texts": list("\x60"),
		"an unknown list": append(hexOf(t, `a1 "X" 9f`), append([]byte(strings.Repeat("\xa0", MaxBody)), 0xff)...),
		"chunks":          append(hexOf(t, `a1 "Tags" 7f`), append([]byte(strings.Repeat("\x60", MaxBody)), 0xff)...),
		"unknown members": append([]byte{0xbf}, append([]byte(strings.Repeat("\x61x\xf6", MaxBody/3)), 0xff)...),
		"claims":          []byte(strings.Repeat("\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", 60)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		faults, _ := decodeCBOR(body, new(acmpca.TagCertificateAuthorityRequest))
		runtime.ReadMemStats(&after)
		if len(faults) == 0 || len(faults) > keptFaults+1 {
			t.Errorf("%s: %d faults", name, len(faults))
		}
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 256<<20 { // in all, not at a time
			t.Errorf("%s: %d MB", name, spent>>20)
		}
	}
}

// TestEncodedCBORIsWhatSmithyReads: outputs, by an independent reader.
func TestEncodedCBORIsWhatSmithyReads(t *testing.T) {
	status, days, empty := acm.CertificateStatusIssued, int64(-300), ""
	at := api.Timestamp{Time: time.UnixMilli(1763899200500)}
	for _, test := range []struct {
		out  any
		want cbor.Value
	}{
		{nil, cbor.Map{}},
		{(*acm.DescribeCertificateResponse)(nil), cbor.Map{}},
		{&acm.DescribeCertificateResponse{Certificate: &acm.CertificateDetail{Status: &status, CreatedAt: at, InUseBy: []string{}, Subject: &empty}},
			cbor.Map{"Certificate": cbor.Map{"Status": cbor.String("ISSUED"), "CreatedAt": &cbor.Tag{ID: 1, Value: cbor.Float64(1763899200.5)}, "InUseBy": cbor.List{}, "Subject": cbor.String("")}}},
		{&acm.ExportCertificateResponse{PrivateKey: api.NewSecret("key")}, cbor.Map{"PrivateKey": cbor.String("key")}},
		{&acm.ExportCertificateRequest{CertificateArn: "a", Passphrase: api.NewSecretBlob([]byte{0, 1})}, cbor.Map{"CertificateArn": cbor.String("a"), "Passphrase": cbor.Slice{0, 1}}},
		{&all{Number: &days, Map: map[string]int{"k": 1 << 40}, Blob: []byte{}}, cbor.Map{"Number": cbor.NegInt(300), "Map": cbor.Map{"k": cbor.Uint(1 << 40)}, "Blob": cbor.Slice{}}},
	} {
		got, err := cbor.Decode(mustCBOR(t, test.out))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%T: got %#v, %v, want %#v", test.out, got, err, test.want)
		}
	}
}

// TestBadTextIsNotSent: neither protocol sends what its clients cannot read.
func TestBadTextIsNotSent(t *testing.T) {
	out := &acm.ExportCertificateResponse{Certificate: new("\xff"), PrivateKey: api.NewSecret("key")}
	for _, p := range []protocol{jsonRPC, rpcCBOR} {
		if body, err := p.encode(out); err == nil || strings.Contains(err.Error(), "key") {
			t.Errorf("%d: %q, %v", p, body, err)
		}
	}
}
