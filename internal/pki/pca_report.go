package pki

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/api/acmpca"
	"github.com/fairlead/fairlead/internal/ca"
	"github.com/fairlead/fairlead/internal/store"
)

// report is an audit report.
type report struct {
	Account   string                           `json:"account"`
	Bucket    string                           `json:"bucket"` // as it was asked for; the file is in the server's folder
	Format    acmpca.AuditReportResponseFormat `json:"format"`
	Status    acmpca.AuditReportStatus         `json:"status"`
	CreatedAt time.Time                        `json:"createdAt"`
}

// key is where the report lies, below the server's folder.
func (r *report) key(authority, id string) string {
	ending := "json"
	if r.Format == acmpca.AuditReportResponseFormatCsv {
		ending = "csv"
	}
	return "audit-report/" + authority + "/" + id + "." + ending
}

// CreateCertificateAuthorityAuditReport starts a list of all certificates that
// the authority has issued. Run writes it.
func (p *PrivateCA) CreateCertificateAuthorityAuditReport(ctx context.Context, in *acmpca.CreateCertificateAuthorityAuditReportRequest) (*acmpca.CreateCertificateAuthorityAuditReportResponse, error) {
	at, err := p.parseARN(ctx, "CreateCertificateAuthorityAuditReport", in.CertificateAuthorityArn)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("draw the id of a report: %w", err)
	}
	r := &report{Account: at[1], Bucket: in.S3BucketName, Format: in.AuditReportResponseFormat, Status: acmpca.AuditReportStatusCreating, CreatedAt: p.Now().UTC()}
	err = p.write(ctx, func(tx *store.Tx) error {
		a, err := p.get(tx, at)
		if err != nil {
			return err
		}
		if err := p.can(a.Value, doPublish, p.Now()); err != nil {
			return err
		}
		// One at a time: each reads the whole ledger.
		waiting := pendingPlace(pendingReport, at[2], "")[:3]
		under, err := store.ListObjects[work](tx, waiting, nil, 1)
		if err != nil {
			return err
		}
		if len(under) > 0 {
			return acmpca.NewRequestInProgressException("An audit report of %s is being made. Try again when it is there.", in.CertificateAuthorityArn)
		}
		if err := store.MakeObject(tx, reportPlace(at[2], id.String()), r); err != nil {
			return err
		}
		return store.MakeObject(tx, pendingPlace(pendingReport, at[2], id.String()), &work{At: r.CreatedAt})
	})
	if err != nil {
		return nil, err
	}
	p.rouse()
	name, key := id.String(), r.key(at[2], id.String())
	return &acmpca.CreateCertificateAuthorityAuditReportResponse{AuditReportId: &name, S3Key: &key}, nil
}

// DescribeCertificateAuthorityAuditReport says whether a report is there.
func (p *PrivateCA) DescribeCertificateAuthorityAuditReport(ctx context.Context, in *acmpca.DescribeCertificateAuthorityAuditReportRequest) (*acmpca.DescribeCertificateAuthorityAuditReportResponse, error) {
	at, err := p.parseARN(ctx, "DescribeCertificateAuthorityAuditReport", in.CertificateAuthorityArn)
	if err != nil {
		return nil, err
	}
	var r *report
	err = p.read(ctx, func(tx *store.Tx) error {
		if _, err := p.get(tx, at); err != nil {
			return err
		}
		o, err := store.GetObject[report](tx, reportPlace(at[2], in.AuditReportId))
		if isNotFound(err) {
			return acmpca.NewResourceNotFoundException("%s has no audit report %s", in.CertificateAuthorityArn, in.AuditReportId)
		}
		if err == nil {
			r = o.Value
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	key := r.key(at[2], in.AuditReportId)
	return &acmpca.DescribeCertificateAuthorityAuditReportResponse{
		AuditReportStatus: &r.Status, CreatedAt: api.Timestamp{Time: r.CreatedAt}, S3BucketName: &r.Bucket, S3Key: &key,
	}, nil
}

// makeReports writes the reports that were asked for.
func (p *PrivateCA) makeReports(ctx context.Context) error {
	return each(ctx, p.Store, store.Place{"authority-pending", pendingReport}, func(o *store.Object[work]) error {
		at := reportPlace(o.Place[2], o.Place[3])
		var r *report
		if _, err := p.Store.Read(ctx, func(tx *store.Tx) error {
			found, err := store.GetObject[report](tx, at)
			if err == nil {
				r = found.Value
			}
			return ignoreNotFound(err)
		}); err != nil {
			return err
		}
		status := acmpca.AuditReportStatusSuccess
		if r != nil {
			if err := p.writeReport(ctx, at, r); err != nil {
				if ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) {
					return err
				}
				p.Log.ErrorContext(ctx, "private CA: an audit report has failed", "authority", at[1], "report", at[2], "error", err)
				status = acmpca.AuditReportStatusFailed
			}
		}
		_, err := p.Store.Write(ctx, func(tx *store.Tx) error {
			if err := take(tx, o.Place); err != nil {
				return ignoreNotFound(err)
			}
			found, err := store.GetObject[report](tx, at)
			if err != nil {
				return ignoreNotFound(err)
			}
			found.Value.Status = status
			return store.PutObject(tx, at, found.Value)
		})
		return err
	})
}

// writeReport writes a report to a file of its own, which is there whole or not
// at all.
func (p *PrivateCA) writeReport(ctx context.Context, at store.Place, r *report) error {
	name := filepath.Join(p.Folder, filepath.FromSlash(r.key(at[1], at[2])))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("make folder of audit reports: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".report-*")
	if err != nil {
		return fmt.Errorf("write audit report: %w", err)
	}
	defer os.Remove(f.Name()) // gone once it has its name
	err = p.writeRows(ctx, f, at[1], r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write audit report: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write audit report: %w", err)
	}
	return nil
}

// reportRow is a certificate in a report, with AWS's names in AWS's order.
type reportRow struct {
	Account     string    `json:"awsAccountId"`
	Service     string    `json:"requestedByServicePrincipal,omitzero"`
	Certificate string    `json:"certificateArn"`
	Serial      string    `json:"serial"`
	Subject     string    `json:"subject"`
	NotBefore   string    `json:"notBefore"`
	NotAfter    string    `json:"notAfter"`
	IssuedAt    string    `json:"issuedAt"`
	RevokedAt   string    `json:"revokedAt,omitzero"`
	Reason      ca.Reason `json:"revocationReason,omitzero"`
	Template    string    `json:"templateArn"`
}

// reportTime is how a report writes times.
const reportTime = "2006-01-02T15:04:05-0700"

func (p *PrivateCA) row(account string, at store.Place, c *issued) reportRow {
	row := reportRow{
		Account: account, Service: c.Service, Certificate: certificateARN(p.arn(account, at[1]), at[2]), Serial: colons(at[2]), Subject: c.Subject,
		NotBefore: c.NotBefore.UTC().Format(reportTime), NotAfter: c.NotAfter.UTC().Format(reportTime), IssuedAt: c.IssuedAt.UTC().Format(reportTime),
		Reason: c.Reason, Template: c.Template,
	}
	if !c.RevokedAt.IsZero() {
		row.RevokedAt = c.RevokedAt.UTC().Format(reportTime)
	}
	return row
}

func colons(serial string) string {
	out := make([]byte, 0, len(serial)*3/2)
	for i := range len(serial) {
		if i > 0 && i%2 == 0 {
			out = append(out, ':')
		}
		out = append(out, serial[i])
	}
	return string(out)
}

func (p *PrivateCA) writeRows(ctx context.Context, to io.Writer, id string, r *report) error {
	w := bufio.NewWriter(to)
	ledger := store.Place{"authority-issued", id}
	var err error
	if r.Format == acmpca.AuditReportResponseFormatCsv {
		table := csv.NewWriter(w)
		header := []string{"awsAccountId", "requestedByServicePrincipal", "certificateArn", "serial", "subject", "notBefore", "notAfter", "issuedAt", "revokedAt", "revocationReason", "templateArn"}
		if err = table.Write(header); err != nil {
			return err
		}
		err = each(ctx, p.Store, ledger, func(o *store.Object[issued]) error {
			x := p.row(r.Account, o.Place, o.Value)
			return table.Write([]string{x.Account, x.Service, x.Certificate, x.Serial, x.Subject, x.NotBefore, x.NotAfter, x.IssuedAt, x.RevokedAt, string(x.Reason), x.Template})
		})
		table.Flush()
		err = errors.Join(err, table.Error())
	} else {
		between := "["
		err = each(ctx, p.Store, ledger, func(o *store.Object[issued]) error {
			line, err := json.Marshal(p.row(r.Account, o.Place, o.Value))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "%s\n%s", between, line)
			between = ","
			return err
		})
		if between == "[" {
			fmt.Fprint(w, between)
		}
		fmt.Fprint(w, "\n]\n")
	}
	return errors.Join(err, w.Flush())
}
