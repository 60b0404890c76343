package clients_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/fairlead/fairlead/internal/meshtest"
)

// goSDK drives aws-sdk-go-v2 in this process. Its types have no JSON form, so
// gojson_test.go converts.
func goSDK(_ *testing.T, s *meshtest.Server) driver {
	return func(ctx context.Context, c call) (answer, error) {
		if c.Presign {
			return presign(ctx, s.API, c)
		}
		var sent int
		client := appmesh.New(appmesh.Options{
			BaseEndpoint: &s.API, Region: c.Region, Retryer: aws.NopRetryer{}, Credentials: goCredentials(c),
			HTTPClient: counting{&sent},
		})
		call := goCall
		if c.PageSize > 0 {
			call = goPages
		}
		got, err := call(ctx, client, c)
		got.Pages = sent
		return got, err
	}
}

func goCredentials(c call) aws.CredentialsProvider {
	if c.Unsigned {
		return aws.AnonymousCredentials{}
	}
	return credentials.NewStaticCredentialsProvider(c.Key, c.Secret, "")
}

// counting counts requests.
type counting struct{ sent *int }

func (c counting) Do(r *http.Request) (*http.Response, error) {
	*c.sent++
	return http.DefaultClient.Do(r)
}

// goCall calls the method of the client that is named like the operation.
func goCall(ctx context.Context, client *appmesh.Client, c call) (answer, error) {
	method := reflect.ValueOf(client).MethodByName(c.Operation)
	input, err := goInput(method.Type().In(1), c.Input)
	if err != nil {
		return answer{}, err
	}
	out := method.Call([]reflect.Value{reflect.ValueOf(ctx), input})
	if err, failed := out[1].Interface().(error); failed {
		return goError(err)
	}
	return goOutput(out[0].Elem())
}

func goOutput(out reflect.Value) (answer, error) {
	metadata := out.FieldByName("ResultMetadata").Interface().(middleware.Metadata)
	id, _ := awsmiddleware.GetRequestIDMetadata(metadata)
	raw, ok := awsmiddleware.GetRawResponse(metadata).(*smithyhttp.Response)
	if !ok {
		return answer{}, errors.New("the SDK kept no response")
	}
	output, err := json.Marshal(fromGo(out))
	return answer{Output: output, Status: raw.StatusCode, Request: id}, err
}

func goError(err error) (answer, error) {
	failure, ok := errors.AsType[smithy.APIError](err)
	response, heard := errors.AsType[*awshttp.ResponseError](err)
	if !ok || !heard {
		return answer{}, err
	}
	typed := reflect.TypeOf(failure).Elem().Name() == failure.ErrorCode()
	return answer{
		Error:   &refusal{Code: failure.ErrorCode(), Message: failure.ErrorMessage(), Typed: &typed},
		Status:  response.HTTPStatusCode(),
		Request: response.ServiceRequestID(),
	}, nil
}

// paginators are the SDK's constructors, which reflection cannot find by name.
var paginators = map[string]any{
	"ListMeshes":          appmesh.NewListMeshesPaginator,
	"ListVirtualNodes":    appmesh.NewListVirtualNodesPaginator,
	"ListVirtualServices": appmesh.NewListVirtualServicesPaginator,
	"ListVirtualRouters":  appmesh.NewListVirtualRoutersPaginator,
	"ListVirtualGateways": appmesh.NewListVirtualGatewaysPaginator,
	"ListRoutes":          appmesh.NewListRoutesPaginator,
	"ListGatewayRoutes":   appmesh.NewListGatewayRoutesPaginator,
	"ListTagsForResource": appmesh.NewListTagsForResourcePaginator,
}

// goPages merges the lists of all pages.
func goPages(ctx context.Context, client *appmesh.Client, c call) (answer, error) {
	newPaginator := reflect.ValueOf(paginators[c.Operation])
	input, err := goInput(newPaginator.Type().In(1), c.Input)
	if err != nil {
		return answer{}, err
	}
	size := int32(c.PageSize)
	input.Elem().FieldByName("Limit").Set(reflect.ValueOf(&size))
	paginator := newPaginator.Call([]reflect.Value{reflect.ValueOf(client), input})[0]
	merged := map[string][]any{}
	for paginator.MethodByName("HasMorePages").Call(nil)[0].Bool() {
		out := paginator.MethodByName("NextPage").Call([]reflect.Value{reflect.ValueOf(ctx)})
		if err, failed := out[1].Interface().(error); failed {
			return goError(err)
		}
		for name, value := range fromGo(out[0].Elem()).(map[string]any) {
			if list, ok := value.([]any); ok {
				merged[name] = append(append([]any{}, merged[name]...), list...)
			}
		}
	}
	output, err := json.Marshal(merged)
	return answer{Output: output, Status: http.StatusOK}, err
}

// presign signs a DescribeMesh in its query, as a Go program does it: the SDK
// has no presigner for App Mesh, only the signer under all of them.
func presign(ctx context.Context, endpoint string, c call) (answer, error) {
	var in struct {
		MeshName string `json:"meshName"`
	}
	if err := json.Unmarshal(c.Input, &in); err != nil || c.Operation != "DescribeMesh" {
		return answer{}, fmt.Errorf("cannot presign %s: %w", c.Operation, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/v20190125/meshes/"+in.MeshName+"?X-Amz-Expires=60", nil)
	if err != nil {
		return answer{}, err
	}
	nothing := sha256.Sum256(nil)
	url, _, err := v4.NewSigner().PresignHTTP(ctx, aws.Credentials{AccessKeyID: c.Key, SecretAccessKey: c.Secret}, r,
		hex.EncodeToString(nothing[:]), "appmesh", c.Region, time.Now())
	return answer{URL: url}, err
}

// member is the API's name of a Go field.
func member(field string) string { return strings.ToLower(field[:1]) + field[1:] }
