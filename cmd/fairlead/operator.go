package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/awsapi"
)

const (
	defaultEndpoint = "http://127.0.0.1:9480"
	defaultRegion   = "us-east-1"
	operatorTimeout = 30 * time.Second
)

// operatorFlags are what every operator command takes.
type operatorFlags struct {
	endpoint string
	output   string
	formats  []string // that output may be; none: the command has no choice
}

// add is for a command that answers with a table or with the server's JSON.
func (o *operatorFlags) add(cmd *cobra.Command) { o.addFormats(cmd, "text", "json") }

// addFormats is for a command that answers in other formats, the first unless
// told otherwise.
func (o *operatorFlags) addFormats(cmd *cobra.Command, formats ...string) {
	cmd.PersistentFlags().StringVar(&o.endpoint, "endpoint-url", "", "the server's API (default $AWS_ENDPOINT_URL_FAIRLEAD, $AWS_ENDPOINT_URL_APP_MESH, $AWS_ENDPOINT_URL, "+defaultEndpoint+")")
	if o.formats = formats; len(formats) > 0 {
		cmd.PersistentFlags().StringVarP(&o.output, "output", "o", formats[0], oneOf(formats))
		completeWith(cmd, "output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	}
}

// oneOf lists words for people: text, wide or json.
func oneOf(words []string) string {
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// operator calls the server's own API, signed with the AWS credential chain.
type operator struct {
	endpoint    string
	region      string
	credentials aws.CredentialsProvider
	client      aws.HTTPClient // trusts AWS_CA_BUNDLE
	output      string         // one of the command's formats
	out         io.Writer
}

func (o *operatorFlags) connect(cmd *cobra.Command) (*operator, error) {
	if len(o.formats) > 0 && !slices.Contains(o.formats, o.output) {
		return nil, usagef("--output: %q is not %s", o.output, oneOf(o.formats))
	}
	endpoint := o.endpoint
	for _, name := range []string{"AWS_ENDPOINT_URL_FAIRLEAD", "AWS_ENDPOINT_URL_APP_MESH", "AWS_ENDPOINT_URL"} {
		if endpoint == "" {
			endpoint = os.Getenv(name)
		}
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	if u, err := neturl.Parse(endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("endpoint %q is not http://HOST:PORT or https://HOST:PORT", endpoint)
	}
	// No instance has a credential of ours in its metadata: do not ask there.
	cfg, err := config.LoadDefaultConfig(cmd.Context(), config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration: %w", err)
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = http.DefaultClient
	}
	return &operator{
		endpoint: strings.TrimSuffix(endpoint, "/"), region: cmp.Or(cfg.Region, defaultRegion), credentials: cfg.Credentials, client: cfg.HTTPClient,
		output: o.output, out: cmd.OutOrStdout(),
	}, nil
}

// call sends a request to the operator API and reads the answer into out, if
// it is not nil. It returns the answer as it came, too.
func (o *operator) call(ctx context.Context, method, path string, in, out any) ([]byte, error) {
	_, body, err := o.send(ctx, awsapi.OperatorService, method, path, in)
	if err != nil || out == nil {
		return body, err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return body, nil
}

// send signs a request for a service and returns the answer, which is JSON, or
// a *refusal.
func (o *operator) send(parent context.Context, service, method, path string, in any) (http.Header, []byte, error) {
	ctx, cancel := context.WithTimeout(parent, operatorTimeout)
	defer cancel()
	request, err := o.request(ctx, service, method, path, in)
	if err != nil {
		return nil, nil, err
	}
	response, err := o.client.Do(request)
	if err != nil && parent.Err() != nil {
		return nil, nil, errors.New("interrupted")
	}
	if err != nil {
		return nil, nil, unreachable(o.endpoint, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("read the server's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, refused(response, body)
	}
	return response.Header, body, nil
}

func (o *operator) request(ctx context.Context, service, method, path string, in any) (*http.Request, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, o.endpoint+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	credentials, err := o.credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("find AWS credentials: %w\nThe server's first start wrote some: set AWS_SHARED_CREDENTIALS_FILE=DATA-DIR/credentials.", err)
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(sum[:]), service, o.region, time.Now(), func(options *v4.SignerOptions) {
		options.DisableURIPathEscaping = false
	})
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return request, nil
}

// refusal is the server's error, with what to do about the usual ones.
type refusal struct {
	code    string // AWS's name: NotFoundException
	message string
	hint    string
}

func (r *refusal) Error() string { return r.code + ": " + r.message + r.hint }

// isRefusal reports whether an error is the server's, with one of some codes.
func isRefusal(err error, codes ...string) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && slices.Contains(codes, r.code)
}

func refused(response *http.Response, body []byte) error {
	var answer struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Type == "" {
		return fmt.Errorf("the server answered %s: is it Fairlead's API address?", response.Status)
	}
	hint := ""
	switch {
	case strings.Contains(answer.Message, "valid region"):
		hint = "\nSet AWS_REGION to the server's --region."
	case strings.HasPrefix(answer.Message, "Signature expired") || strings.HasPrefix(answer.Message, "Signature not yet current"):
		hint = "\nThe clocks of this host and of the server's are more than five minutes apart."
	case answer.Type == "UnrecognizedClientException" || answer.Type == "InvalidSignatureException":
		hint = "\nThe credentials are not this server's: use those in its DATA-DIR/credentials."
	case answer.Type == "AccessDeniedException":
		hint = "\nA proxy's credentials open its stream only, a user's do what its policies allow: 'fairlead iam simulate' says why."
	}
	return &refusal{answer.Type, answer.Message, hint}
}

// unreachable says what to do about a server that does not answer.
func unreachable(endpoint string, err error) error {
	hint := "Is it running there? --endpoint-url or AWS_ENDPOINT_URL say where it is."
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		hint = "If this is the server's own certificate, set AWS_CA_BUNDLE=DATA-DIR/server-ca.pem."
	}
	return fmt.Errorf("reach the server at %s: %w\n%s", endpoint, cause(err), hint)
}

// cause drops the method and URL that net/http puts in front of an error.
func cause(err error) error {
	if u, ok := errors.AsType[*neturl.Error](err); ok {
		return u.Err
	}
	return err
}

// print writes the answer as it came with -o json, else as a table.
func (o *operator) print(raw []byte, table func(w io.Writer)) error {
	if o.output == "json" {
		var indented bytes.Buffer
		if err := json.Indent(&indented, raw, "", "  "); err != nil {
			return fmt.Errorf("print the answer: %w", err)
		}
		indented.WriteByte('\n')
		_, err := indented.WriteTo(o.out)
		return err
	}
	w := tabwriter.NewWriter(o.out, 0, 0, 3, ' ', 0)
	table(w)
	return w.Flush()
}
