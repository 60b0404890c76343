package clients_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	api "github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/meshtest"
)

var update = flag.Bool("update", false, "write what aws-sdk-go-v2 sees into "+casesFile)

func TestMain(m *testing.M) { os.Exit(meshtest.Main(m)) }

func TestEveryClientSeesTheSame(t *testing.T) {
	steps, rest := readCases(t)
	if *update {
		writeCases(t, steps, rest)
		return
	}
	for _, client := range clients {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t, client.start)
			for _, s := range steps {
				if s.presign && !client.presigns {
					continue
				}
				got, err := r.do(t, s)
				if err != nil {
					t.Fatalf("%s:%d: %s: %v", casesFile, s.line, s.operation, err)
				}
				if got != s.want {
					t.Errorf("%s:%d: %s:\n got %s\nwant %s", casesFile, s.line, s.operation, got, s.want)
				}
			}
		})
	}
}

func writeCases(t *testing.T, steps []step, rest string) {
	t.Helper()
	r := newRun(t, goSDK)
	var text strings.Builder
	for _, s := range steps {
		got, err := r.do(t, s)
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", casesFile, s.line, s.operation, err)
		}
		text.WriteString(s.text + "= " + got + "\n")
	}
	if err := os.WriteFile(casesFile, []byte(text.String()+rest), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every operation has a case that goes well and one that does not, every list
// is paged through, and every error that a client can bring about is.
func TestCasesLeaveNothingOut(t *testing.T) {
	steps, _ := readCases(t)
	well, badly, paged, codes := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range steps {
		_, answer, _ := strings.Cut(s.want, " ")
		code, _, failed := strings.Cut(answer, ": ")
		switch {
		case strings.HasPrefix(answer, "requests "):
			paged[s.operation] = true
		case failed && !strings.HasPrefix(answer, "{"):
			badly[s.operation], codes[code] = true, true
		default:
			well[s.operation] = true
		}
	}
	for _, op := range api.Operations {
		if !well[op.Name] {
			t.Errorf("%s: no case in which it goes well", op.Name)
		}
		if !badly[op.Name] {
			t.Errorf("%s: no case in which it is refused", op.Name)
		}
		if strings.HasPrefix(op.Name, "List") && !paged[op.Name] {
			t.Errorf("%s: no case with the client's own paginator", op.Name)
		}
	}
	for _, code := range []string{
		"BadRequestException", "NotFoundException", "ConflictException", "ResourceInUseException", "ForbiddenException", "TooManyTagsException", "LimitExceededException",
		"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException",
	} {
		if !codes[code] {
			t.Errorf("no case brings about %s", code)
		}
	}
}
