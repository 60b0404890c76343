package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/pki"
)

const (
	// renewalsEvery is how often the server is asked how renewals stand.
	renewalsEvery = 500 * time.Millisecond
	// sayEvery is how many askings lie between two lines of progress.
	sayEvery = 4
)

func newACMRenewCommand() *cobra.Command {
	flags := &operatorFlags{}
	var authority string
	var all, detach bool
	cmd := &cobra.Command{
		Use:   "renew {ARN… | --authority ARN | --all}",
		Short: "Renew many certificates now, with new keys",
		Long: `Renews certificates of ACM now: those that are named, those that have an authority in
their chain, or all. Each gets a new key, under the ARN that it has, and proxies get it
at once. Do so when keys may have become known.

Only private certificates are renewed that are issued and in use, or that were exported
since they were issued; which were left out is told. The command waits until all are
renewed, and exits 1 if some fail: the server goes on trying those. With --detach it
does not wait. If it ends before, the renewals go on.`,
		Example: `  fairlead acm renew --authority arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/ID
  fairlead acm renew --all --detach`,
		Args: func(_ *cobra.Command, args []string) error {
			given := 0
			for _, is := range []bool{len(args) > 0, authority != "", all} {
				if is {
					given++
				}
			}
			if given != 1 {
				return usagef("give either the ARNs of certificates, --authority or --all")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			in := map[string]any{}
			switch {
			case all:
				in["all"] = true
			case authority != "":
				in["authority"] = authority
			default:
				in["certificates"] = args
			}
			var out pki.Renewals
			raw, err := again(cmd.Context(), func() ([]byte, error) {
				return o.call(cmd.Context(), http.MethodPost, "/fairlead/v1/certificates/renew", in, &out)
			})
			if err != nil {
				return err
			}
			if !detach {
				if err := o.followRenewals(cmd.Context(), cmd.ErrOrStderr(), out.Renewing+out.Busy); err != nil {
					return err
				}
			}
			return o.print(raw, func(w io.Writer) { showRenewals(w, &out, detach) })
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&authority, "authority", "", "renew what has the authority of this ARN in its chain")
	cmd.Flags().BoolVar(&all, "all", false, "renew all certificates")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait until they are renewed")
	return cmd
}

func showRenewals(w io.Writer, r *pki.Renewals, detach bool) {
	done := "renewed"
	if detach {
		done = "renewing"
	}
	fmt.Fprintf(w, "%s %d, left out %d\n", done, r.Renewing+r.Busy, r.Skipped)
	for _, skipped := range r.Reasons {
		fmt.Fprintf(w, "left out %s: %s\n", skipped.ARN, skipped.Reason)
	}
	if more := r.Skipped - len(r.Reasons); more > 0 {
		fmt.Fprintf(w, "left out %d more\n", more)
	}
}

// followRenewals waits until no renewal is under way any more, or nothing but
// those that failed.
func (o *operator) followRenewals(ctx context.Context, say io.Writer, of int) error {
	for asked := 0; ; asked++ {
		var now pki.RenewalProgress
		if _, err := again(ctx, func() ([]byte, error) {
			return o.call(ctx, http.MethodGet, "/fairlead/v1/certificates/renewals", nil, &now)
		}); err != nil {
			return err
		}
		if now.Failing == now.Waiting {
			for _, f := range now.Reasons {
				fmt.Fprintf(say, "not renewed %s: %s\n", f.ARN, f.Reason)
			}
			if now.Failing > 0 {
				return fmt.Errorf("%d certificates are not renewed: the server's log says why. It goes on trying", now.Failing)
			}
			return nil
		}
		if asked%sayEvery == sayEvery-1 {
			fmt.Fprintf(say, "renewed %d of %d\n", max(0, of-now.Waiting), of)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(renewalsEvery):
		}
	}
}
