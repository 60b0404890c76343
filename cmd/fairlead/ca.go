package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/pki"
)

func newCACommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "See certificate authorities, and do what AWS's API has no operation for",
		Args:  noArgs,
		RunE:  showHelp,
	}
	flags.add(cmd)
	cmd.AddCommand(newCAListCommand(flags), newCAAdoptCommand(flags), newCAUnrevokeCommand(flags))
	return cmd
}

func newCAListCommand(flags *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the certificate authorities, and whether proxies get their CRLs",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list pki.AuthorityList
			raw, err := o.call(cmd.Context(), http.MethodGet, "/fairlead/v1/authorities", nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				fmt.Fprintln(w, "AUTHORITY\tTYPE\tSTATUS\tCRL UNTIL\tPROBLEM")
				for _, a := range list.Authorities {
					until := "-"
					if !a.Until.IsZero() {
						until = a.Until.Format(time.DateTime)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", a.Arn, a.Type, a.Status, until, cmp.Or(a.Problem, "-"))
				}
			})
		},
	}
}

func newCAUnrevokeCommand(flags *operatorFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "unrevoke CERTIFICATE-ARN",
		Short: "Take a certificate off its authority's list of revoked ones",
		Long: `Takes a certificate off its authority's list of revoked ones, for one that was
revoked by mistake. Its ARN is that of the authority, /certificate/ and the serial
number. Proxies take it again as soon as they have the new CRL, at once; the CRL
and the OCSP answers of its authority say so from then on. In ACM it is ISSUED
again. Others may have seen it revoked, and may go by that for as long as the CRL
that they have fetched holds.`,
		Example: `  fairlead ca unrevoke arn:aws:acm-pca:us-east-1:000000000000:certificate-authority/ID/certificate/6707447683a9b7f4057627ffd55cebcc`,
		Args:    oneArg("the ARN of a certificate of a private authority"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			_, err = o.call(cmd.Context(), http.MethodPost, "/fairlead/v1/authorities/unrevoke", pki.UnrevokeInput{CertificateArn: args[0]}, nil)
			return err
		},
	}
}
