package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	awsacmclient "github.com/aws/aws-sdk-go-v2/service/acm"
	awspcaclient "github.com/aws/aws-sdk-go-v2/service/acmpca"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acm"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/awsacm"
	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/pki"
	"github.com/fairlead/fairlead/internal/server"
)

// Whose ARNs specs name, as --acm says.
const (
	acmEmbedded = "embedded"
	acmAWS      = "aws"
)

// certificates puts ACM and Private CA behind the API's address, or has what specs
// name fetched from AWS.
func (p *controlPlane) certificates(ctx context.Context, mux *awsapi.Mux, service *server.Service, graphs *server.Graphs) error {
	if p.config.ACM == acmAWS {
		return p.mirrorAWS(ctx, mux, service)
	}
	awsapi.MountTargets(mux, acmpca.SigningName, acmpca.TargetPrefix, acmpca.Service(p.pca), acmpca.Operations)
	p.pca.MountOperator(mux)
	attempts, err := pki.NewACMMetrics(p.metrics)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	p.acm = pki.NewACM(pki.ACMConfig{
		Store: p.store, Authorities: p.pca, Region: p.config.Region, Account: p.config.AccountID, Metrics: attempts, Now: time.Now, Log: p.log,
	})
	awsapi.MountTargets(mux, acm.SigningName, acm.TargetPrefix, acm.Service(p.acm), acm.Operations)
	p.acm.MountOperator(mux)
	rotations, err := pki.NewRotationMetrics(p.metrics)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	p.rotator = &pki.Rotator{PCA: p.pca, ACM: p.acm, Graph: graphs.Graph, Metrics: rotations, Log: p.log}
	p.rotator.MountOperator(mux)
	return nil
}

// mirrorAWS makes that ARNs are AWS's.
func (p *controlPlane) mirrorAWS(ctx context.Context, mux *awsapi.Mux, service *server.Service) error {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(p.config.Region))
	if err != nil {
		return fmt.Errorf("--acm aws: load the AWS configuration: %w", err)
	}
	// AWS_ENDPOINT_URL commonly is this very server. AWS_ENDPOINT_URL_ACM and
	// AWS_ENDPOINT_URL_ACM_PCA apply.
	cfg.BaseEndpoint = nil
	metrics, err := awsacm.NewMetrics(p.metrics)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	p.mirror = awsacm.New(awsacm.Config{
		Store: p.store, ACM: awsacmclient.NewFromConfig(cfg), PCA: awspcaclient.NewFromConfig(cfg),
		Region: p.config.Region, Account: p.config.AccountID, Metrics: metrics, Now: time.Now, Log: p.log,
	})
	p.mirror.MountOperator(mux)
	service.Fetch = p.mirror.Fetch
	awsapi.MountTargets(mux, acmpca.SigningName, acmpca.TargetPrefix, acmpca.Service(p.pca), elsewhere(acmpca.Operations))
	awsapi.MountTargets(mux, acm.SigningName, acm.TargetPrefix, acm.Service(nil), elsewhere(acm.Operations))
	return nil
}

// elsewhere are operations that only say where to call them.
func elsewhere[S any](operations []api.Operation[S]) []api.Operation[S] {
	all := slices.Clone(operations)
	for i := range all {
		name := all[i].Name
		all[i].Call = func(context.Context, S, any) (any, error) {
			return nil, api.Exceptionf("ValidationException", http.StatusBadRequest,
				"%s: this server runs with --acm aws, so that certificates and authorities are those of AWS: call AWS, with no endpoint set for this service", name)
		}
	}
	return all
}
