"""Code that answers questions of DABench, written from their text: each prints the labels that it is asked for.

Column names of the tables are in the scripts, none of their content is.
"""

LOAD = """
import numpy as np
import pandas as pd
from scipy import stats
table = pd.read_csv("data/" + {name!r})
def iqr_outliers(values):
    low, high = values.quantile([0.25, 0.75])
    reach = 1.5 * (high - low)
    return values[(values < low - reach) | (values > high + reach)]
"""

SCRIPTS = {
    "0": """print(f"@mean_fare[{table.Fare.mean():.2f}]")""",
    "5": """
family = table.SibSp + table.Parch
print(f"@correlation_coefficient[{family.corr(table.Fare):.2f}]")
""",
    "6": """
group = pd.cut(table.Age, [0, 13, 20, 60, 200], right=False, labels=["child", "teenager", "adult", "elderly"])
for name, fare in table.groupby(group, observed=True).Fare.mean().items():
    print(f"@mean_fare_{name}[{fare:.2f}]")
""",
    "24": """print(f"@mean_age[{table.age.dropna().mean():.2f}]")""",
    "25": """
print("@bmi_distribution[normal]" if abs(table.bmi.skew()) < 0.5 else "@bmi_distribution[not_normal]")
""",
    "26": """
kept = table.dropna(subset=["charges", "children"])
print(f"@correlation_coefficient[{kept.charges.corr(kept.children):.2f}]")
""",
    "27": """
found = iqr_outliers(table.charges)
print(f"@total_outliers[{len(found)}] @mean_charges_outliers[{found.mean():.2f}]")
print(f"@median_charges_outliers[{found.median():.2f}]")
""",
    "114": """
best = table["Happiness Score"].max()
print(f"@country_with_highest_score[{','.join(table.Country[table['Happiness Score'] == best])}]")
""",
    "117": """
numbers = table.select_dtypes("number").drop(columns="Happiness Score")
r = numbers.corrwith(table["Happiness Score"])
strongest = r.abs().idxmax()
print(f"@strongest_correlation_variable[{strongest}]")
print(f"@correlation_type[{'positive' if r[strongest] > 0 else 'negative'}]")
""",
    "132": """
z = (table.Fare - table.Fare.mean()) / table.Fare.std(ddof=0)
print(f"@outlier_count[{(z.abs() > 3).sum()}]")
""",
    "174": """print(f"@fare_skewness[{table.Fare.skew():.2f}]")""",
    "175": """print(f"@outliers_count[{(abs(stats.zscore(table.Age.dropna())) > 3).sum()}]")""",
    "176": """
rich = table[(table.Sex == "male") & (table.Survived == 1) & (table.Fare > table.Fare.mean())]
print(f"@median_age[{rich.Age.median():.2f}]")
""",
    "179": """
first = table[(table.Survived == 1) & (table.Pclass == 1)].dropna(subset=["Age", "Fare"])
print(f"@correlation_coefficient[{stats.pearsonr(first.Age, first.Fare)[0]:.3f}]")
""",
    "180": """
for number, fares in table.groupby("Pclass").Fare:
    print(f"@class{number}_outliers[{(abs(stats.zscore(fares)) > 3).sum()}]")
""",
    "243": """print(f"@mean_batting_average[{table.batting_average.dropna().mean():.3f}]")""",
    "255": """
gdp = table.gdpPercap_2007
print(f"@mean_gdp2007[{gdp.mean():.2f}] @standard_deviation_gdp2007[{gdp.std():.2f}]")
""",
    "409": """print(f"@missing_values[{table.Cabin.isna().sum()}]")""",
    "412": """
family = (table.SibSp + table.Parch).groupby(table.Survived).mean()
print(f"@mean_familysize_survived[{family[1]:.2f}] @mean_familysize_did_not_survive[{family[0]:.2f}]")
""",
    "414": """
for name, age in zip(("first", "second", "third"), table.groupby("Pclass").Age.mean()):
    print(f"@{name}_class_average_age[{age:.2f}]")
""",
    "518": """
z = (table.Fare - table.Fare.mean()) / table.Fare.std()
print(f"@number_of_entries_left[{(z <= 3).sum()}]")
""",
    "542": """print(f"@mean_length[{table.Length.mean():.2f}]")""",
    "543": """
r = table.Diameter.corr(table.Rings)
print(f"@correlation_coefficient[{r:.2f}]")
print("@relationship_status[correlate]" if abs(r) >= 0.1 else "@relationship_status[no correlation]")
""",
    "719": """print(f"@mean_mpg[{table.mpg.mean():.2f}] @median_mpg[{table.mpg.median():.2f}]")""",
    "737": """print(f"@mean_income[{table.Income.mean():.2f}] @std_dev_income[{table.Income.std():.2f}]")""",
    "738": """
p = stats.shapiro(table.Age).pvalue
print("@is_normal[Not Normal]" if p < 0.05 else "@is_normal[Normal]")
""",
}
